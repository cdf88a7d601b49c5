"""A sick GPU is named by what the real probe sees of it, through an nvidia-smi that answers as the real one does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from benchmark.cluster.gpu_health import Wanted
from benchmark.cluster.preflight import Needs, Probe, gpus, problems, unchecked, warnings
from tests import nvidia_smi
from tests.nvidia_smi import H200, eight, uuid
from tests.unit.cluster.probed import ask

NEWER = ("gpu_recovery_action", "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded", "fabric.state")
ROWS = ("remapped_rows.pending", "remapped_rows.failure")
ALL = Wanted()
SLICE = "MIG-d9a47cfb-d1f2-d08c-b40e-0812b597ae69"
LOST = "Unable to determine the device handle for GPU7: 0000:08:00.0: Unknown Error"


def seen(
    tmp_path: Path,
    boards: Sequence[dict[str, str]],
    unknown: Collection[str] = (),
    said: Sequence[str] = (),
    code: int = 0,
    visible: str | None = None,
) -> Probe:
    (tmp_path / "bin").mkdir()
    nvidia_smi.write(tmp_path / "bin", boards, unknown, said, code)
    return ask(tmp_path, {}, visible=visible)


def said_of(probe: Probe, wanted: Wanted = ALL) -> tuple[list[str], list[str]]:
    needs = Needs("cuda", "python3", "/somewhere", 0, "/somewhere", 0, gpus=wanted)
    return problems(probe, needs), warnings(probe, needs)


# What a driver says of a GPU, and what is said of that. (A lost one keeps its number and its name.)
CHANGED = set(H200) - {"index", "pci.bus_id", "uuid"}
SICK = {
    "asks for a recovery action: Drain P2P": {"gpu_recovery_action": "Drain P2P"},
    "rows of its memory failed and need a reset to be remapped. Reset it": {"remapped_rows.pending": "Yes"},
    "rows of its memory failed and could not be remapped. A reset does not": {"remapped_rows.failure": "Yes"},
    "pages of its memory failed and need a reset": {"retired_pages.pending": "Yes"},
    "uncorrectable ECC errors were counted since its driver was loaded: 3. Reset": {
        "ecc.errors.uncorrected.volatile.total": "3"
    },
    "its caches had more uncorrectable ECC errors than NVIDIA allows. A reset does not": {NEWER[1]: "Yes"},
    "recovery action: Reset; rows of its memory failed and need a reset to be remapped; uncorr": {
        "gpu_recovery_action": "Reset",
        "remapped_rows.pending": "Yes",
        "ecc.errors.uncorrected.volatile.total": "1",
    },
}
BROKEN = {
    "nvidia-smi says '[GPU is lost]' of it": {**dict.fromkeys(H200, "[GPU is lost]"), "name": "NVIDIA H200"},
    "nvidia-smi says '[Unknown Error]' of it": {"pstate": "[Unknown Error]", "memory.total": "[Unknown Error]"},
    "nvidia-smi says '[GPU requires reset]' of it": {"gpu_recovery_action": "[GPU requires reset]"},
}
SET_WRONG = {
    "is in MIG mode, and CUDA_VISIBLE_DEVICES names no slice": {"mig.mode.current": "Enabled"},
    "its compute mode is Prohibited": {"compute_mode": "Prohibited"},
}
DOUBTFUL = {
    "has 8 of 16 PCIe lanes": {"pcie.link.width.current": "8"},
    "is linked at PCIe generation 1 of 5, and the others here": {"pcie.link.gen.current": "1"},
    "its NVLink fabric is not set up (In Progress)": {"fabric.state": "In Progress"},
}


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """A node with eight healthy GPUs."""
    return seen(tmp_path_factory.mktemp("well"), eight())


@pytest.mark.parametrize("kind", [SICK, BROKEN, SET_WRONG], ids=["sick", "broken", "set wrong"])
def test_gpus_that_are_not_fit_fail_their_node(tmp_path: Path, kind: dict[str, dict[str, str]]) -> None:
    changes = dict(enumerate(kind.values()))
    boards = eight({n: {k: v for k, v in own.items() if k in CHANGED} for n, own in changes.items()})
    probe = seen(tmp_path, boards)
    found, noted = said_of(probe)
    assert (len(found), noted) == (len(kind), [])
    for number, (words, problem) in enumerate(zip(kind, found, strict=True)):
        assert problem.startswith(f"GPU {number} (00000000:0{number + 1}:00.0)")
        assert words in problem
        for chosen in (str(number), uuid(number), uuid(number)[:5]):
            assert said_of(probe, Wanted(chosen))[0] == [problem]
    # Whoever leaves them out measures another, by its UUID too.
    for chosen in ("7", uuid(7)):
        found, noted = said_of(probe, Wanted(chosen))
        assert (found, len(noted)) == ([], 0 if kind is SET_WRONG else len(kind))
    # Only what answers can be measured though it is sick.
    found, noted = said_of(probe, Wanted(sick_fails=False))
    assert (len(found), len(noted)) == ((0, len(kind)) if kind is SICK else (len(kind), 0))


def test_what_may_be_harmless_is_a_warning(tmp_path: Path) -> None:
    probe = seen(tmp_path, eight(dict(enumerate(DOUBTFUL.values()))))
    found, noted = said_of(probe)
    assert found == []
    assert len(noted) == len(DOUBTFUL)
    for number, (words, warning) in enumerate(zip(DOUBTFUL, noted, strict=True)):
        assert warning.startswith(f"GPU {number} (00000000:0{number + 1}:00.0)")
        assert words in warning
    assert said_of(probe, Wanted("6,7"))[1] == []


IDLE = {"pstate": "P8", "pcie.link.gen.current": "1"}
ANEW = {"persistence_mode": "Disabled"}
OF_ANY = ("pci.bus_id", "name", "memory.total", "uuid")
UNIFIED = {**dict.fromkeys(H200, "[N/A]"), "index": "0", "driver_version": "580.95"}
HEALTHY = {
    "recorded": [H200],
    "eight": eight(),
    "idle, with a link that saves power": eight(dict.fromkeys(range(8), IDLE)),
    "one idle among busy ones": eight({7: IDLE}),
    "one just woken, of two": [H200, {**H200, "index": "1", "pcie.link.gen.current": "1"}],
    "loaded anew for every question": eight({n: {**ANEW, "pcie.link.gen.current": str(n % 5 + 1)} for n in range(8)}),
    "a card without ECC, MIG and fabric": [{**UNIFIED, **{field: H200[field] for field in OF_ANY}}],
    "old words": [{**H200, **dict.fromkeys(ROWS, "0"), "gpu_recovery_action": "[Not Supported]"}],
    "GB10": [{**UNIFIED, "name": "NVIDIA GB10", "pci.bus_id": "0000000F:01:00.0", "memory.total": "[Not Supported]"}],
    "GH200": [{**UNIFIED, "name": "NVIDIA GH200 480GB", "pci.bus_id": "00000009:01:00.0"}],
    "Jetson": [{**UNIFIED, "name": "Orin (nvgpu)", "driver_version": "540.4.0"}],
    "Jetson without a driver's version": [{**UNIFIED, "name": "Orin (nvgpu)", "driver_version": "N/A"}],
}


@pytest.mark.parametrize("boards", HEALTHY.values(), ids=list(HEALTHY))
def test_a_healthy_gpu_raises_no_alarm(tmp_path: Path, boards: list[dict[str, str]]) -> None:
    probe = seen(tmp_path, boards)
    assert said_of(probe, Wanted(expected=len(boards))) == ([], [])
    assert len(gpus(probe)) == len(boards)
    assert unchecked(probe) == ()


def test_a_gpu_that_is_lost_among_eight_is_missed(tmp_path: Path) -> None:
    probe = seen(tmp_path, eight(lost=[7]), said=[LOST])
    (problem,), noted = said_of(probe)
    assert problem.startswith(f"nvidia-smi lists 7 GPUs and says: {LOST}")
    assert noted == []
    found, (noted_one,) = said_of(probe, Wanted("0,1"))
    assert found == []
    assert LOST in noted_one
    assert "7 GPUs answer here, and preflight_gpus says 8" in said_of(probe, Wanted("0,1", expected=8))[0][0]


def test_a_number_of_gpus_that_is_not_expected(well: Probe) -> None:
    for expected in (7, 9):
        found, _ = said_of(well, Wanted(expected=expected))
        assert found[0].startswith(f"8 GPUs answer here, and preflight_gpus says {expected}:")


def test_gpus_that_are_silently_gone_are_missed_by_number(tmp_path: Path) -> None:
    probe = seen(tmp_path, eight(lost=range(1, 8)))
    assert said_of(probe) == ([], [])
    assert said_of(probe, Wanted(expected=8))[0][0].startswith("1 GPU answers here, and preflight_gpus says 8:")


def test_slices_that_are_named_are_wanted(tmp_path: Path) -> None:
    probe = seen(tmp_path, eight({0: {"mig.mode.current": "Enabled"}, 3: {"gpu_recovery_action": "Reset"}}))
    found, (noted,) = said_of(probe, Wanted(SLICE))
    assert found == []
    assert noted.startswith("GPU 3 (00000000:04:00.0), which this run does not use, is not fit: the driver asks")
    assert "GPU 0" in said_of(probe, Wanted("0"))[0][0]


def test_slices_of_a_node_without_mig_are_none(well: Probe) -> None:
    words = f"CUDA_VISIBLE_DEVICES is '{SLICE}', and no GPU here is in MIG mode."
    assert said_of(well, Wanted(SLICE))[0] == [words]


@pytest.mark.parametrize(
    ("visible", "problem", "warning"),
    [
        ("0,-1,1", "", "'-1' is negative, and so CUDA ignores the rest"),
        ("0,0", "'0' occurs twice, and CUDA then sees no GPU at all", ""),
        ("", "entry 1 is empty", ""),
        ("8", "'8' is beyond the machine's 8 GPUs", ""),
        ("GPU-9", "'GPU-9' is not a device of this machine", ""),
        ("GPU-1,GPU-9", "", "'GPU-9' is not a device of this machine"),
    ],
)
def test_what_cuda_leaves_out_is_said_before(well: Probe, visible: str, problem: str, warning: str) -> None:
    found, noted = said_of(well, Wanted(visible))
    assert [problem in one for one in found] == [True] * bool(problem)
    assert [warning in one for one in noted] == [True] * bool(warning)


def test_what_the_login_chooses_is_what_the_run_gets(tmp_path: Path) -> None:
    probe = seen(tmp_path, eight({0: {"gpu_recovery_action": "Reset"}}), visible="1,1")
    (problem,), _ = said_of(probe)
    assert "'1' occurs twice" in problem
    # What the run is given goes before.
    assert "GPU 0" in said_of(probe, Wanted("0"))[0][0]


OLD = {
    "570": ((), ()),
    "550": (("gpu_recovery_action",), ("gpu_recovery_action",)),
    "470": ((*NEWER, *ROWS), NEWER),
    "418": ((*NEWER, *ROWS, "mig.mode.current", "--query-remapped-rows"), (*NEWER, *ROWS, "mig.mode.current")),
    "a later one": (("pcie.link.gen.current",), ()),
}


@pytest.mark.parametrize(("unknown", "lacking"), OLD.values(), ids=list(OLD))
def test_what_a_driver_does_not_know_breaks_nothing(
    tmp_path: Path, unknown: tuple[str, ...], lacking: tuple[str, ...]
) -> None:
    sick = {"retired_pages.pending": "Yes", "remapped_rows.failure": "Yes"}
    probe = seen(tmp_path, eight({2: sick}), unknown)
    (problem,), _ = said_of(probe)
    assert "pages of its memory failed" in problem
    assert ("could not be remapped" in problem) == ("--query-remapped-rows" not in unknown)
    checked = [name for name in lacking if name != "fabric.state"]
    assert sorted(unchecked(probe)) == sorted(checked)
    assert len(gpus(probe)) == 8
