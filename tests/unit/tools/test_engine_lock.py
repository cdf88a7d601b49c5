from typing import Any

import pytest
from packaging.markers import Marker

from benchmark.cluster.packages.resolver import checksums, parse_requirements
from benchmark.provisioned import ENGINES
from benchmark.settings import Settings
from tools import engine_lock

VLLM = ENGINES["vllm"]
CPYTHON = "implementation_name == 'cpython' and platform_machine == 'x86_64' and sys_platform == 'linux'"


def package(name: str, *tags: str) -> dict[str, Any]:
    wheels = [
        {"url": f"https://index.example/{name}-1-{tag}.whl", "hash": f"sha256:{number:064x}", "size": 10**9}
        for number, tag in enumerate(tags)
    ]
    return {"name": name, "version": "1", "wheels": wheels}


def hashes(text: str, name: str) -> set[int]:
    return {int(one, 16) for one in checksums(text).get(name, ())}


def test_each_python_has_its_wheel_and_no_other() -> None:
    tags = ("cp310-cp310", "cp311-cp311", "cp312-cp312", "cp313-abi3", "cp314-cp314t", "cp312-cp312")
    platforms = ("manylinux_2_28_x86_64",) * 5 + ("musllinux_1_2_x86_64",)
    own = package("own", *(f"{tag}-{platform}" for tag, platform in zip(tags, platforms, strict=True)))
    lock = {"package": [package("pure", "py3-none-any"), own]}
    text = engine_lock.render(VLLM, VLLM.lock, f"own==1 ; {CPYTHON}\npure==1 ; {CPYTHON}\n", lock)
    assert hashes(text, "own") == {1, 2, 3}
    assert hashes(text, "pure") == {0}
    assert [str(one) for one in parse_requirements(text)] == ["own==1", "pure==1"]
    assert "2 packages, up to 2.0 GB of wheels" in text


def test_a_marker_says_only_what_is_not_said_already() -> None:
    lock = {"package": [package("six", "cp312-abi3-manylinux2014_x86_64")]}
    text = engine_lock.render(VLLM, VLLM.lock, f"six==1 ; python_full_version >= '3.12' and {CPYTHON}", lock)
    (six,) = parse_requirements(text)
    assert six.marker == Marker('python_full_version >= "3.12"')


FOREIGN = ["cp311-cp311-manylinux_2_28_x86_64", "py3-none-win_amd64", "py3-none-manylinux_2_39_x86_64"]


@pytest.mark.parametrize("tag", FOREIGN)
def test_what_would_be_built_on_the_node_is_refused(tag: str) -> None:
    with pytest.raises(SystemExit, match=r"a==1 has no wheel for Python 3\.1[12] on x86_64 with glibc 2\.31"):
        engine_lock.render(VLLM, VLLM.lock, "a==1", {"package": [package("a", tag)]})


def test_the_lock_that_is_kept_is_whole() -> None:
    assert VLLM.setting(Settings(), "requirements") == VLLM.lock.file
    text = (engine_lock.CHECKOUT / VLLM.lock.file).read_text()
    requirements, sums = parse_requirements(text), checksums(text)
    assert {"vllm", "torch", "triton", "transformers"} <= sums.keys()
    for one in requirements:
        assert len(one.specifier) == 1
        assert str(one.specifier).startswith("==")
        assert sums[one.name]
    for target in engine_lock.targets(VLLM.lock):
        applying = [one.name for one in requirements if not one.marker or one.marker.evaluate(target.environment())]
        assert len(applying) == len(set(applying)), "one version of each for one Python"
    assert "://" not in text
