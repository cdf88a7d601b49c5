"""Samples read as columns: what `Sample` accepts and refuses, line by line, whoever looks at the line."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmark.cluster.results import read_columns as module
from benchmark.cluster.results.read_columns import read_columns
from benchmark.columns import Columns
from benchmark.errors import InputError
from benchmark.files import read_samples
from benchmark.records import Sample
from tests.unit.building import closed_loop, failed, sample, sample_lists

GOOD = sample(0, tokens=3).model_dump_json().encode()


def lists_of(columns: Columns) -> dict[str, list[int]]:
    return {field.name: getattr(columns, field.name).tolist() for field in fields(columns)}


def outcome(read: Callable[[Path], Columns], path: Path) -> Any:
    """Return what reading gives, the numbers of all columns or the sentence that refuses them."""
    try:
        return lists_of(read(path))
    except InputError as error:
        return str(error)


def of_records(path: Path) -> Columns:
    return Columns.of(read_samples(path))


def agree(content: bytes) -> Any:
    """Read the content in both ways and return what both give."""
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(content)
        found = outcome(read_columns, path)
        assert found == outcome(of_records, path)
    return found


def test_the_fields_are_those_of_a_sample() -> None:
    assert {*module._Line.__struct_fields__, "token_ids"} == set(Sample.model_fields)
    required = {name for name, field in Sample.model_fields.items() if field.is_required()}
    assert {field.name for field in msgspec.structs.fields(module._Line) if field.required} == required


@given(sample_lists(12))
def test_what_is_written_is_read(samples: list[Sample]) -> None:
    content = "".join(one.model_dump_json() + "\n" for one in samples).encode()
    assert agree(content) == lists_of(Columns.of(samples))


def test_what_the_program_writes_is_plain() -> None:
    unreported = sample(3).model_copy(update={"token_ids": ()})  # a server that does not report its tokens
    broken = failed(4).model_copy(update={"error": '"],', "output_tokens": 2})
    written = [*closed_loop([1000, 1100]), failed(2, 2200), sample(5, tokens=0), unreported, broken]
    assert module._plain([one.model_dump_json().encode() for one in written]) is not None


def test_a_line_far_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 3)
    assert ", line 8: not a sample" in agree(b"\n".join([*[GOOD] * 7, b"{}", *[GOOD] * 4]))
    assert agree(b"\n".join([GOOD] * 8))["index"] == [0] * 8


# What a field may be replaced with: of every type, in range and out of it, and not even JSON.
VALUES = [
    *("null", "true", "false", "0", "-0", "1", "-1", "01", "007", "1.0", "1.5", "1e2", "1E400", "-0.0", "0.1e1", "NaN"),
    *("Infinity", "9223372036854775807", "9223372036854775808", "1" + "0" * 30, "9" * 4300, "9" * 4301, "9" * 5000),
    *(
        '""',
        '"1"',
        '"p"',
        '"\\ud800"',
        '"\\u0000"',
        '"a\\"b"',
        '"\\q"',
        '"\t"',
        '"' + "x" * 200 + '"',
        '"' + "é" * 201 + '"',
    ),
    *(
        '"' + "x" * 4001 + '"',
        "[]",
        "[1]",
        "[1,2,3]",
        "[1, 2, 3]",
        "[01,2,3]",
        "[1,2,3,]",
        "[,1,2]",
        "[1,,3]",
        "[1;2;3]",
    ),
    *(
        "[0,0,0]",
        "[-1,2,3]",
        "[1.0,2,3]",
        "[true,2,3]",
        '["1",2,3]',
        "[null,2,3]",
        "[[1,2,3]]",
        "[1,2,3",
        "1,2,3]",
        "{}",
    ),
    *(f"[1,2,{'9' * digits}]" for digits in (4000, 4001, 4300, 4301, 5000)),
    *(
        "{" + '"a":1}',
        "[" * 300 + "]" * 300,
        "",
        " ",
        "1 1",
        '"],"error":"',
        '[1],"error":[2',
        "\x00",
        "\xff",
        "\u2028",
    ),
]
KEYS = [*Sample.model_fields, "more", "", "Index", "token_ids ", "\\u0074oken_ids", "token\\u005fids", "\\u0069ndex"]


def line_of(pairs: list[tuple[str, str]]) -> bytes:
    return ("{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}").encode("utf-8", "surrogateescape")


def pairs_of(record: Sample) -> list[tuple[str, str]]:
    return [(key, json.dumps(value, separators=(",", ":"))) for key, value in record.model_dump(mode="json").items()]


PAIRS, FAILED = pairs_of(sample(0, tokens=3)), pairs_of(failed(0))


@st.composite
def changed_lines(draw: st.DrawFn) -> bytes:
    """Lines that are nearly samples: fields replaced, repeated, left out, in another order, and bytes changed."""
    pairs = list(PAIRS)
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(["replace", "add", "drop", "swap", "number"])):
            case "replace":
                at = draw(st.integers(0, len(pairs) - 1)) if pairs else 0
                pairs[at : at + 1] = [(pairs[at][0] if pairs else "index", draw(st.sampled_from(VALUES)))]
            case "add":
                pair = draw(st.sampled_from(KEYS)), draw(st.sampled_from([*VALUES, *(value for _, value in PAIRS)]))
                pairs.insert(draw(st.integers(0, len(pairs))), pair)
            case "drop" if pairs:
                pairs.pop(draw(st.integers(0, len(pairs) - 1)))
            case "swap" if pairs:
                pairs.insert(draw(st.integers(0, len(pairs) - 1)), pairs.pop())
            case "number":
                name = draw(st.sampled_from([key for key, value in PAIRS if value.isdigit()]))
                value = str(draw(st.sampled_from([0, 1, 2, 3, 4, 50_000_000, 1_800_000_000, 2**63 - 1])))
                pairs = [(key, value if key == name else other) for key, other in pairs]
    line = bytearray(line_of(pairs))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [
                    b"",
                    b"\n",
                    b"\r",
                    b" ",
                    b'"',
                    b"\\",
                    b",",
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b"\xff",
                    b"\xe2\x80",
                    b"0",
                    b"e",
                    b".",
                ]
            )
        )
    return bytes(line)


@given(st.lists(changed_lines(), min_size=1, max_size=3), st.sampled_from([b"\n", b"", b"\n\n", b"\r\n", b"\n{}"]))
@example([GOOD + GOOD, GOOD[:40] + b"\n" + GOOD[40:]], b"\n")
@example([b'{"index":0,"issued_ns":1,"completed_ns":9,"prompt_id":"x,"token_ids":[],"error":null}'], b"\n")
@example([b'{"index":0,"issued_ns":1,"completed_ns":9,"prompt_id":"x,"token_ids":[],"error":"}'], b"\n")
@example(
    [b'{"index":0,"prompt_id":"p","issued_ns":1,"completed_ns":9,"token_ids":[[],"token_ids":[],"error":null}'], b"\n"
)
def test_both_ways_of_reading_say_the_same(lines: list[bytes], end: bytes) -> None:
    agree(b"\n".join([GOOD, *lines]) + end)


@pytest.mark.parametrize("key", KEYS)
def test_every_value_in_every_field(key: str) -> None:
    pairs = FAILED if key == "error" else PAIRS
    for value in VALUES:
        agree(line_of([(name, value if name == key else other) for name, other in pairs]) + b"\n")
        agree(line_of([*pairs, (key, value)]) + b"\n")
        agree(line_of([(key, value), *pairs]) + b"\n")
