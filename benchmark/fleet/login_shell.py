"""A command line that every login shell passes on to /bin/sh as it is: sh, bash, zsh, csh, tcsh, fish."""

from __future__ import annotations

import functools
import shlex

# Within single quotes csh still replaces `!` and ends a line, and fish reads `\\` and `\'`. A quote would end them.
_UNSAFE = frozenset("!\\'")
# What a line of ours begins with, so that nothing which the user's files export changes what it does.
OWN_ENVIRONMENT = (
    # Where sh is bash it has the functions that they export, under whatever names.
    "case $BASH_VERSION in ?*) unset -f $(compgen -A function) ;; esac; "
    # The system's own programs, also where one of these files sets PATH and forgets them.
    "PATH=${PATH:+$PATH:}/usr/bin:/bin; export PATH; "
    # Environment modules set it, and any other Python than theirs does not find its own library with it.
    "unset PYTHONHOME; "
    # What programs say is read by this side: in one language, whatever the user's.
    "LC_ALL=C; export LC_ALL; "
)


def plain(line: str) -> str:
    """Return a line of /bin/sh that does what `line` does, and can stand between single quotes in every shell."""
    if line.isascii() and line.isprintable() and _UNSAFE.isdisjoint(line):
        return line
    # printf's octal numbers: a backslash before a digit means nothing to any of them.
    octal = "".join(map(_octal, line))
    # A user's files may export a function of that name.
    return f'unset -f printf; eval "$(printf "{octal}")"'


def far_command(line: str) -> str:
    """Return what is given to a node's login shell so that its /bin/sh runs `line`."""
    return f"/bin/sh -c {shlex.quote(plain(line))}"


@functools.cache
def _octal(character: str) -> str:
    # Those that mean something to printf, within double quotes, or to one of the shells.
    if character.isascii() and character.isprintable() and character not in "!\\'\"$`%":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
