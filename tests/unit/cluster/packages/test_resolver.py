import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import parse_tag
from pydantic import ValidationError

from benchmark.cluster.packages.resolver import Choice, Target, Wheel, checksums, choose, parse_requirements
from benchmark.errors import InputError
from tests.unit.cluster.wheel_files import wheel

DEBIAN = Target(python="3.11", platform="manylinux_2_36_x86_64")
UBUNTU = Target(python="3.10", platform="manylinux_2_35_x86_64")


def pick(text: str, *wheels: Wheel, target: Target = DEBIAN) -> Choice:
    return choose(parse_requirements(text), wheels, target)


def names(choice: Choice) -> list[str]:
    return [f"{one.name} {one.version}" for one in choice.wheels]


def test_what_the_wheels_ask_for_comes_too() -> None:
    choice = pick("a==1", wheel("a", "1", "b>=2"), wheel("b", "2", "c"), wheel("c", "1"), wheel("unasked", "1"))
    assert names(choice) == ["a 1", "b 2", "c 1"]
    assert choice.missing == ()


def test_markers_hold_for_the_node_and_not_for_this_python() -> None:
    text = 'n==2.4; python_version >= "3.11"\nn==2.2; python_version < "3.11"'
    both = wheel("n", "2.4"), wheel("n", "2.2", 'old; python_version < "3.11"'), wheel("old", "1")
    assert names(pick(text, *both)) == ["n 2.4"]
    assert names(pick(text, *both, target=UBUNTU)) == ["n 2.2", "old 1"]


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("cp311-cp311-manylinux_2_28_x86_64", True),
        ("cp311-cp311-manylinux_2_36_x86_64", True),
        ("cp311-cp311-manylinux_2_39_x86_64", False),
        ("cp311-cp311-manylinux_2_28_aarch64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("cp310-cp310-manylinux2014_x86_64", False),
        ("cp311-cp311-manylinux1_x86_64", True),
        ("cp38-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64", True),
        ("cp312-abi3-manylinux2014_x86_64", False),
        ("cp311-cp311-linux_x86_64", True),
        ("py2.py3-none-any", True),
        ("py3-none-manylinux_2_27_x86_64", True),
        ("cp311-cp311-win_amd64", False),
    ],
)
def test_a_wheel_fits_a_python_and_a_platform(tag: str, fits: bool) -> None:
    assert (names(pick("a", wheel("a", "1", tag=tag))) == ["a 1"]) is fits


def test_the_newest_that_everybody_takes() -> None:
    three = [wheel("c", version) for version in ("1.9", "1.10", "2.0", "3.0rc1")]
    assert names(pick("c", *three)) == ["c 2.0"]
    assert names(pick("a\nc", wheel("a", "1", "c<2"), *three)) == ["a 1", "c 1.10"]
    assert names(pick("c>=2.5", *three)) == ["c 3.0rc1"]
    # The demand of a version that was given up again counts no more.
    found = pick("a\nb", wheel("a", "2", "c<2"), wheel("a", "1"), wheel("b", "1", "a<2"), *three)
    assert names(found) == ["a 1", "b 1"]


def test_of_one_version_the_wheel_that_is_made_for_the_node() -> None:
    special = wheel("a", "1", tag="cp311-cp311-manylinux_2_17_x86_64")
    assert pick("a", wheel("a", "1"), special).wheels == (special,)
    assert pick("a", special, wheel("a", "1"), target=UBUNTU).wheels == (wheel("a", "1"),)


def test_a_build_for_a_device_is_the_pinned_version() -> None:
    choice = pick("torch==2.13.0", wheel("torch", "2.13.0+cpu"))
    assert names(choice) == ["torch 2.13.0+cpu"]
    assert choice.wheels[0].locked.startswith("torch==2.13.0+cpu --hash=sha256:")


def test_extras_are_followed_where_they_are_asked_for() -> None:
    toolkit = wheel("toolkit", "13", 'cublas; extra == "cublas"', 'fft; extra == "fft"')
    parts = wheel("cublas", "1"), wheel("fft", "1")
    assert names(pick("toolkit", toolkit, *parts)) == ["toolkit 13"]
    asked = wheel("torch", "2", 'toolkit[cublas]==13; platform_system == "Linux"')
    assert names(pick("torch", asked, toolkit, *parts)) == ["cublas 1", "toolkit 13", "torch 2"]


def test_what_is_missing_says_for_whom() -> None:
    choice = pick("a\nd==1", wheel("a", "1", "b>=2"), wheel("b", "1"), wheel("e", "1", "b"))
    assert [str(one) for one in choice.missing] == ["b>=2 (for a)", "d==1"]


def test_a_wheel_for_newer_pythons_only_is_none() -> None:
    assert names(pick("a", wheel("a", "2", python=">=3.12"), wheel("a", "1", python=">=3.8"))) == ["a 1"]
    assert names(pick("a", wheel("a", "1", python=">=3.11.2"))) == ["a 1"]


def test_demands_that_never_rest_are_reported() -> None:
    with pytest.raises(InputError, match="contradict each other"):
        # b 2 needs an a below 2, and only a 2 asks for b at all with an upper bound that a 1 does not have.
        pick("a", wheel("a", "2", "b"), wheel("a", "1"), wheel("b", "1", "a<2"))


@pytest.mark.parametrize("line", ["--index-url x", "-r other.txt", "a @ file:///x.whl", "a==1 --hash=sha256:0", "a b"])
def test_a_line_that_is_no_plain_requirement_is_refused(line: str) -> None:
    with pytest.raises(InputError, match=r"^Line 2 of the requirements is"):
        parse_requirements(f"# one\n{line}\n")


SUMS = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=4, unique=True)
SPACES = st.sampled_from([" ", "  ", " \\\n    ", " \\\n"])


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), SUMS), st.data())
def test_checksums_are_read_however_they_are_laid_out(sums: dict[str, list[str]], data: st.DataObject) -> None:
    text = "# head\n\n"
    for name, own in sums.items():
        text += f"{name}==1 ; python_version >= '3.11'"
        text += "".join(f"{data.draw(SPACES)}--hash=sha256:{one}" for one in own) + "\n"
    assert checksums(text) == {name: frozenset(own) for name, own in sums.items() if own}
    assert [one.name for one in parse_requirements(text)] == list(sums)


def test_a_package_of_two_versions_has_the_checksums_of_both() -> None:
    one, two = "1" * 64, "2" * 64
    text = f"Num_py==1 ; python_version < '3.12' --hash=sha256:{one}\nnum-py==2 --hash=sha256:{two}\n"
    assert checksums(text) == {"num-py": {one, two}}


@pytest.mark.parametrize("platform", ["linux_x86_64", "manylinux2014_x86_64", "win_amd64", "manylinux_2_28"])
def test_a_platform_is_written_in_one_way(platform: str) -> None:
    with pytest.raises(ValidationError, match="manylinux_2_28_x86_64"):
        Target(python="3.11", platform=platform)


@given(minor=st.integers(8, 14), glibc=st.integers(17, 40), machine=st.sampled_from(["x86_64", "aarch64"]))
def test_tags_are_those_of_the_node_the_newest_glibc_first(minor: int, glibc: int, machine: str) -> None:
    target = Target(python=f"3.{minor}", platform=f"manylinux_2_{glibc}_{machine}")
    tags = target.tags()
    (best,) = parse_tag(f"cp3{minor}-cp3{minor}-manylinux_2_{glibc}_{machine}")
    assert tags[best] == 0
    assert sorted(tags.values())[0] == 0
    assert all(tag.platform == "any" or tag.platform.endswith(machine) for tag in tags)
    (above,) = parse_tag(f"cp3{minor}-cp3{minor}-manylinux_2_{glibc + 1}_{machine}")
    assert above not in tags
    (older,) = parse_tag(f"cp3{minor}-cp3{minor}-manylinux_2_17_{machine}")
    assert older in tags
