"""CUDA_VISIBLE_DEVICES against CUDA's documented rules, read once more by brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.visible_devices import read

UUIDS = (
    "GPU-8f32aaaa-0000-0000-0000-000000000001",
    "GPU-8f77bbbb-0000-0000-0000-000000000002",
    "GPU-11115555-0000-0000-0000-000000000003",
    "MIG-22225555-0000-0000-0000-000000000004",
)


@pytest.mark.parametrize(
    ("value", "entries", "said"),
    [
        ("0,1", ("0", "1"), None),
        ("2,1", ("2", "1"), None),
        (" 0 , 1 ", ("0", "1"), None),
        ("0,1,", ("0", "1"), None),
        (
            "0,-1,1",
            ("0",),
            "'-1' is negative, and so CUDA ignores the rest; the entries after it (1) are hidden too",
        ),
        ("-1", (), "'-1' is negative"),
        ("NoDevFiles", (), "'NoDevFiles' is not a number"),
        ("", (), "entry 1 is empty"),
        ("0,0", (), "'0' occurs twice, and CUDA then sees no GPU at all"),
        ("0,1,+0", (), "'+0' occurs twice"),
        ("0 1", ("0",), "'0 1' is read as 0 alone: entries are separated by commas"),
        ("0 1,2", ("0", "2"), "'0 1' is read as 0 alone"),
        ("0;1", ("0",), "'0;1' is read as 0 alone"),
        ("0,,1", ("0",), "entry 2 is empty, and so CUDA ignores the rest; the entries after it (1) are hidden too"),
        ("0,3,1", ("0",), "'3' is beyond the machine's 3 GPUs"),
        ("GPU-8f32,GPU-1", (UUIDS[0], UUIDS[2]), None),
        ("GPU-8f,GPU-1", (), "'GPU-8f' is the beginning of 2 UUIDs"),
        ("GPU-1,GPU-9", (UUIDS[2],), "'GPU-9' is not a device of this machine"),
        ("GPU-1,GPU-11", (), "'GPU-11' occurs twice"),
        ("GPU-1, GPU-8f32", (UUIDS[2],), "'GPU-8f32' does not begin with GPU- as the first does"),
        ("0,GPU-1", ("0",), "'GPU-1' is not a number"),
        ("GPU-1,0", (UUIDS[2],), "'0' does not begin with GPU- as the first does"),
        ("MIG-2222", (UUIDS[3],), None),
        ("MIG-2222,GPU-1", (UUIDS[3],), "'GPU-1' does not begin with MIG-"),
        ("MIG-GPU-1/2/0", ("MIG-GPU-1/2/0",), None),
    ],
)
def test_what_cuda_takes_and_which_entry_ends_it(value: str, entries: tuple[str, ...], said: str | None) -> None:
    found = read(value, 3, UUIDS)
    assert found.entries == entries
    if said is None:
        assert found.left_out is None
    else:
        assert found.left_out is not None
        assert said in found.left_out
        assert repr(value) in found.left_out


# What CUDA 13 (driver 580.159) made of each value on a machine with two H200s: which of the two it showed.
FIRST, SECOND = "GPU-a5ce8628-0947-5c92-ac5f-03be6e81ce41", "GPU-90f790e3-2ed7-3aa3-fbcc-2adb714b57ea"
ANSWERS = {
    (0, 1): ["0,1", "0,1,", "0 ,1", "GPU-a5ce,GPU-90f7", f"{FIRST} ,{SECOND}", f"{FIRST[:-1]},{SECOND}"],
    (1, 0): ["1,0"],
    (0,): [
        *("0,-1,1", "0,-1,0", "0,2,0", "0 1", "0;1", "0,,1", "0x1", "-0", "0\n", f"0,{SECOND}", FIRST, f"{FIRST},"),
        *("GPU-A5CE", f"GPU-{FIRST[4:].upper()}", f"{FIRST}x", f"{FIRST}, {SECOND}", f"{FIRST},GPU-zz,{SECOND}"),
        f"{FIRST},GPU-zz,{FIRST}",
    ],
    (1,): ["1,2", " 1", "\t1", "\n1", "+1", "01", "1gpu", "1.5", "GPU-90", f"{SECOND},0"],
    (): [
        *("", "-1", "2", "2,0", ",1", "x", "all", "none", "NoDevFiles", "+-1", "- 1", "99999999999,0"),
        *("0,0", "0,1,0", "0,00", "0,0x1", "1,01", f"{FIRST},{FIRST[:9]}", f"{FIRST},{SECOND},{FIRST}"),
        *("GPU-", FIRST[4:], f"gpu-{FIRST[4:]}", f" {FIRST}", "GPU-a5ce8 x", FIRST.replace("-", "")),
    ],
}


@pytest.mark.parametrize(("seen", "value"), [(seen, value) for seen, values in ANSWERS.items() for value in values])
def test_cuda_itself_takes_the_same(seen: tuple[int, ...], value: str) -> None:
    found = read(value, 2, [FIRST, SECOND])
    assert [(FIRST, SECOND).index(e) if e.startswith("GPU-") else int(e) for e in found.entries] == list(seen)
    chosen = [found.chooses(index, uuid) for index, uuid in enumerate((FIRST, SECOND))]
    assert chosen == [index in seen for index in (0, 1)]


def test_without_a_driver_what_looks_like_a_device_is_one() -> None:
    assert read("7,9").entries == ("7", "9")
    assert read("GPU-8f,MIG-1").entries == ("GPU-8f",)


def brute_force(value: str, count: int) -> list[str]:
    """Read a list of numbers as the guide says: one after the other, to the first that is no device; twice: none."""
    numbers: list[int] = []
    for entry in value.split(","):
        digits = ""
        for place, letter in enumerate(entry.strip()):
            if not (letter.isdigit() or (place == 0 and letter in "+-")):
                break
            digits += letter
        if digits in ("", "+", "-") or not 0 <= int(digits) < count:
            break
        numbers.append(int(digits))
    return [str(number) for number in numbers] if len(set(numbers)) == len(numbers) else []


@given(
    st.lists(
        st.sampled_from(["0", "1", "2", "3", "9", "-1", "", " 1", "2 ", "0 1", "x", "+2", "1gpu"]), max_size=5
    ).map(",".join),
    st.integers(1, 4),
)
def test_numbers_are_read_as_the_rules_say(value: str, count: int) -> None:
    found = read(value, count)
    assert list(found.entries) == brute_force(value, count)
    asked = [entry for entry in value.split(",") if entry.strip()]
    assert found.left_out is not None or len(found.entries) == len(asked)
