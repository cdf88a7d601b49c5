"""Looks at a node: which of them succeeded, and what those printed."""

import shlex
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from looks import Looks


def ask(looks: Looks, stdin: str = "") -> dict[str, str]:
    done = subprocess.run(["sh", "-c", looks.command], input=stdin, capture_output=True, text=True, check=True)
    return looks.heard(done.stdout)


def test_what_succeeded_is_heard_each_once_and_standard_input_is_not_theirs() -> None:
    twice = shlex.join(["printf", "%s\\n", "a  b", "it's"])
    failing = ["false", "sh -c 'echo much; exit 3'", "nosuchprogram 1"]
    looks = Looks.of([twice, *failing, "cat", twice, "sh -c 'printf unended'"])
    assert ask(looks, "for others") == {twice: "a  b\nit's\n", "cat": "", "sh -c 'printf unended'": "unended"}


@given(text=st.text(max_size=300))
def test_whatever_a_node_prints_before_or_instead_is_no_answer_to_a_look(text: str) -> None:
    assert Looks.of(["true", "true 2"]).heard(text) == {}
