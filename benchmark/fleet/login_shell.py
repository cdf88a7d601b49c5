"""Command lines that every login shell passes to /bin/sh unchanged: sh, bash, zsh, csh, tcsh, fish."""

from __future__ import annotations

import functools
import shlex

# Within single quotes, csh still expands `!` and ends at a newline, and fish reads `\\` and `\'`. A quote ends them.
_UNSAFE = frozenset("!\\'")
# The beginning of our command lines: it undoes exports of the user's files that would change what they do.
OWN_ENVIRONMENT = (
    # If sh is bash, it has their exported functions, which may have any name.
    "case $BASH_VERSION in ?*) unset -f $(compgen -A function) ;; esac; "
    # The system's programs must be found even if one of the files sets PATH without them.
    "PATH=${PATH:+$PATH:}/usr/bin:/bin; export PATH; "
    # Environment modules set it, and with it any Python but theirs does not find its library.
    "unset PYTHONHOME; "
    # The controller reads the programs' messages, so they must be in one language.
    "LC_ALL=C; export LC_ALL; "
)


def plain(line: str) -> str:
    """Return a /bin/sh line that does what `line` does and is safe between single quotes in every shell."""
    if line.isascii() and line.isprintable() and _UNSAFE.isdisjoint(line):
        return line
    # As octal numbers for printf: no shell interprets a backslash before a digit.
    octal = "".join(map(_octal, line))
    # The user's files may export a function of that name.
    return f'unset -f printf; eval "$(printf "{octal}")"'


def far_command(line: str) -> str:
    """Return the command for a node's login shell that makes its /bin/sh run `line`."""
    return f"/bin/sh -c {shlex.quote(plain(line))}"


@functools.cache
def _octal(character: str) -> str:
    # Escape what printf, double quotes, or one of the shells would interpret.
    if character.isascii() and character.isprintable() and character not in "!\\'\"$`%":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
