from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.serving.sse import EventParser

DATA = st.lists(
    st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"])), min_size=1, max_size=3
)
NOISE = st.sampled_from(["", ": keep-alive", "event: message", "id: 7", "retry", ":"])


@given(
    st.lists(st.tuples(NOISE, DATA), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["data:", "data: "]),
    st.lists(st.integers(1, 40), max_size=30),
    st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=5),
)
def test_events_come_out_wherever_the_network_cuts(
    events: list[tuple[str, list[str]]], newline: str, prefix: str, cuts: list[int], unfinished: str
) -> None:
    # After "data:" one leading space belongs to the form and not to the data.
    said = [[f" {line}" if prefix == "data:" and line.startswith(" ") else line for line in data] for _, data in events]
    text = ""
    for (noise, _), lines in zip(events, said, strict=True):
        text += newline.join([noise, *(prefix + line for line in lines), "", ""])
    stream = (text + "data: " + unfinished).encode()
    parser, got = EventParser(), []
    for size in cuts:
        got += parser.feed(stream[:size])
        stream = stream[size:]
    got += parser.feed(stream)
    assert got == ["\n".join(data).encode() for _, data in events]
