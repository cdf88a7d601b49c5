import pytest

from benchmark.cluster.gpu_health import Wanted, judge
from benchmark.cluster.gpu_listing import Listing

GOOD = [f"{n}, 00000000:{n + 1:02X}:00.0, NVIDIA H100 80GB HBM3, 81559, 570.86.15, GPU-{n}, None" for n in range(8)]
SEVEN = GOOD[:7]
ON_PCI = [f"0000:{n + 1:02x}:00.0" for n in range(8)]
LOST = "Unable to determine the device handle for GPU0000:08:00.0: GPU is lost. Reboot the system to recover this GPU"


def problems(lines: list[str], status: str = "0") -> tuple[str, ...]:
    return judge(Listing.parse(lines), status, (), Wanted()).problems


def warnings(lines: list[str], on_pci: list[str]) -> tuple[str, ...]:
    return judge(Listing.parse(lines), "14", on_pci, Wanted()).warnings


def sick(cell: str, field: int) -> list[str]:
    cells = GOOD[7].split(", ")
    cells[field] = cell
    return [*SEVEN, ", ".join(cells)]


def test_eight_good_gpus_are_fit() -> None:
    assert problems(GOOD) == ()
    assert warnings(GOOD, ON_PCI) == ()
    assert len(Listing.parse(GOOD).gpus) == 8


@pytest.mark.parametrize(
    "lines",
    [
        ["0, 00000000:01:00.0, NVIDIA A30, 24576, 550.54.15"],
        ["0, 00000000:01:00.0, NVIDIA GH200 480GB, [N/A], 570.86.15, GPU-1, [N/A]"],
        ["0, 0000000F:01:00.0, NVIDIA GB10, [Not Supported], 580.95, GPU-1, None"],
        ["0, N/A, Orin (nvgpu), N/A, N/A, N/A, N/A"],
        ["", *GOOD, ""],
        ["0, 00000000:01:00.0, NVIDIA A30, [Insufficient Permissions], 550.54.15, GPU-1, [deprecated]"],
        ["ERROR: ld.so: object 'libx.so' from LD_PRELOAD cannot be preloaded: ignored.", *GOOD],
        ["NVIDIA A30, 24576, 550.54.15"],
    ],
)
def test_what_a_driver_does_not_tell_is_no_fault(lines: list[str]) -> None:
    assert problems(lines) == ()


@pytest.mark.parametrize("status", ["0", "2", "3", "6", "9", "15", "255"])
@pytest.mark.parametrize(
    "line",
    [
        LOST,
        "Unable to determine the device handle for gpu 0000:08:00.0: Unknown Error",
        "Unable to determine the device handle for GPU7: 0000:08:00.0: Not Found",
        "Error: something that nobody has seen before",
        "No devices were found",
    ],
)
def test_a_gpu_that_is_gone_is_never_passed_over(line: str, status: str) -> None:
    (found,) = problems([line, *SEVEN], status)
    assert "nvidia-smi lists 7 GPUs and says: " in found
    assert line[:60] in found


@pytest.mark.parametrize("cell", ["[GPU is lost]", "[Unknown Error]", "[GPU requires reset]", "ERR!"])
@pytest.mark.parametrize("field", [0, 2, 3, 4, 5, 6])
def test_a_gpu_whose_values_are_errors_is_named(cell: str, field: int) -> None:
    (found,) = problems(sick(cell, field))
    assert f"GPU {'7' if field else cell} (00000000:08:00.0) is not fit" in found
    assert cell in found


@pytest.mark.parametrize("action", ["Reset", "Reboot", "Drain P2P", "Drain and Reset", "[GPU requires reset]"])
def test_a_gpu_that_asks_for_a_recovery_action_is_not_fit(action: str) -> None:
    (found,) = problems(sick(action, 6))
    assert "GPU 7 (00000000:08:00.0) is not fit" in found
    assert action in found


@pytest.mark.parametrize(
    ("lines", "status", "why"),
    [
        ([], "0", "nvidia-smi failed ("),
        (["No devices were found"], "6", "nvidia-smi failed ("),
        ([LOST], "15", "nvidia-smi failed ("),
        (["sh: nvidia-smi: not found"], "127", "there is no nvidia-smi on its PATH"),
        (["timeout: failed to run command 'nvidia-smi': No such file or directory"], "127", "there is no nvidia-smi"),
    ],
)
def test_without_any_gpu_there_is_one_sentence(lines: list[str], status: str, why: str) -> None:
    (found,) = problems(lines, status)
    assert found.startswith(f"No GPU is visible: {why}")


def test_an_exit_code_without_words_is_told_too() -> None:
    assert "exit code 12 after listing 8 GPUs" in problems(GOOD, "12")[0]


def test_a_warning_keeps_nobody_from_measuring_and_is_shown() -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:08:00.0"
    assert problems([*GOOD, warning], "14") == ()
    assert warnings([*GOOD, warning], []) == (f"nvidia-smi: {warning}",)


def test_a_gpu_that_only_the_bus_lists_is_named() -> None:
    (found,) = warnings(SEVEN, ON_PCI)
    assert "The PCI bus has 8 NVIDIA GPUs and nvidia-smi lists 7: 0000:08:00.0 is lost, or not this user's" in found
    # Whoever says how many there are to be has an answer.
    assert judge(Listing.parse(SEVEN), "0", ON_PCI, Wanted(expected=7)).warnings == ()
