import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.serving.sse import BOM, MAX_OTHER_BYTES, Event, EventParser

LINE = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]))
DATA = st.lists(LINE, min_size=1, max_size=3)
NOISE = st.sampled_from(["", ": keep-alive", "id: 7", "retry: 10", ":", "retry"])
TYPES = st.sampled_from(["", "message", "error"])


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Return the pieces of `data` of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


@given(
    st.lists(st.tuples(NOISE, TYPES, DATA), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["data:", "data: "]),
    st.booleans(),
    st.lists(st.integers(1, 40), max_size=30),
    LINE.filter(bool),
)
def test_events_come_out_wherever_the_network_cuts(
    events: list[tuple[str, str, list[str]]],
    newline: str,
    prefix: str,
    mark: bool,
    sizes: list[int],
    unfinished: str,
) -> None:
    # After "data:" one leading space belongs to the form and not to the data.
    sent = [
        (type_, [f" {line}" if prefix == "data:" and line.startswith(" ") else line for line in data])
        for _, type_, data in events
    ]
    text = ""
    for (noise, _, _), (type_, lines) in zip(events, sent, strict=True):
        text += noise + newline if noise else ""
        text += f"event: {type_}{newline}" if type_ else ""
        text += "".join(prefix + line + newline for line in lines) + newline
    text += f"data: {unfinished}"
    parser = EventParser()
    stream = (BOM if mark else b"") + text.encode()
    found = [event for piece in cut(stream, sizes) for event in parser.feed(piece)]
    expected = [
        Event("\n".join(line.removeprefix(" ") if prefix == "data:" else line for line in lines).encode(), type_)
        for type_, lines in sent
    ]
    assert found == expected
    assert parser.close() == [Event(unfinished.encode())]
    assert parser.other == b""


def test_an_event_is_there_with_the_carriage_return_that_ends_it() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\r\r") == [Event(b"a")]
    assert parser.feed(b"\ndata: b\r") == [], "the line feed belongs to the carriage return before it"
    assert parser.feed(b"\n\r\n") == [Event(b"b")]


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_a_byte_order_mark_in_pieces_takes_nothing_with_it(first: int) -> None:
    parser, stream = EventParser(), BOM + b"data: a\n\n"
    assert parser.feed(stream[:first]) + parser.feed(stream[first:]) == [Event(b"a")]


def test_what_is_no_event_stream_is_kept_for_its_words() -> None:
    parser = EventParser()
    assert parser.feed(b'{"error":\n {"message": "out of memory"}}') == []
    assert parser.close() == []
    assert parser.other == b'{"error":\n {"message": "out of memory"}}\n'
    parser.feed(b"x" * 2 * MAX_OTHER_BYTES + b"\n")
    assert len(parser.other) == MAX_OTHER_BYTES


def test_an_error_line_is_an_event_of_that_type() -> None:
    assert EventParser().feed(b'error: {"code": 500}\n\n') == [Event(b'{"code": 500}', "error")]
