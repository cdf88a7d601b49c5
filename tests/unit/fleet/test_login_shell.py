"""Whatever is said to /bin/sh arrives there, through every login shell that a user may have."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmark.fleet.login_shell import far_command, plain

SHELLS = ("sh", "bash", "dash", "zsh", "tcsh", "csh", "fish")
ROOT = Path(__file__).parents[3]
SCRIPTS = [*sorted((ROOT / "roles").glob("*/files/*.sh")), *sorted((ROOT / "benchmark/fleet/scripts").glob("*.sh"))]
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=60)


def run(shell: str, command: str) -> str:
    assert shutil.which(shell), f"{shell} is not installed (Debian: tcsh fish zsh)"
    return subprocess.run([shell, "-c", command], capture_output=True, check=True).stdout.decode()


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=8)
@given(text=TEXT)
@example(text="it's!\\n \\\\ \\' $HOME `id` \"%s\" 100%\n!! !x\ttab \x7f é €\n\n.")
def test_every_shell_passes_on_every_word(shell: str, text: str) -> None:
    assert run(shell, far_command(shlex.join(["printf", "%s", f"{text}."]))) == f"{text}."


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_passes_on_our_scripts(shell: str) -> None:
    # All in one line: longer than any that is sent.
    said = run(shell, far_command(shlex.join(["printf", "%s.", *(path.read_text() for path in SCRIPTS)])))
    assert said == "".join(path.read_text() + "." for path in SCRIPTS)


def test_a_line_that_no_shell_changes_is_left_as_it_is() -> None:
    assert plain("umask 77 && mkdir ~/x") == "umask 77 && mkdir ~/x"
