import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.text.columns import WIDTH, above, clean, columns, entry, left, wrap

ODD = st.text(st.characters(), max_size=120)


@given(ODD)
def test_clean_text_cannot_steer_a_terminal(text: str) -> None:
    assert clean(text).isprintable()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\x1b[31mred\x07", "a?[31mred?"),
        ("two\n lines\tand  tabs", "two lines and tabs"),
        ("right\u202eto left", "right?to left"),
        ("zalgo a\u0323\u0323\u0323", "zalgo ạ??"),
        ("메모리 부족", "메모리 부족"),
        ("{{ 7 * 7 }}", "{{ 7 * 7 }}"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_wide_characters_take_two_columns() -> None:
    assert columns("메모리") == 6
    assert columns(left("메모리", 10)) == 10


@given(ODD, st.integers(0, 20), st.integers(4, 60))
def test_wrapped_lines_fit_and_nothing_is_lost(text: str, indent: int, room: int) -> None:
    wrapped = wrap(text, " " * indent, " " * indent, indent + room)
    assert all(columns(line) <= indent + room for line in wrapped.split("\n"))
    assert "".join(wrapped.split()) == "".join(clean(text).split())


@given(ODD, ODD)
def test_entries_and_cells_fit(name: str, text: str) -> None:
    assert all(columns(line) <= WIDTH for line in entry(name, text, "  ").split("\n"))
    assert all(columns(line) <= WIDTH for line in above(name, 11).split("\n"))
