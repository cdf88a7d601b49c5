"""Text for people in lines of WIDTH columns: cleaned, wrapped and aligned for a terminal.

Text from a node is untrusted input: it is cleaned, passed to templates as a value, and never used as a template.
"""

from __future__ import annotations

import unicodedata

# A terminal has 80 columns, and Ansible indents what it prints by 8.
WIDTH = 72

# Width of the column of a list's labels.
LABEL = 12


def clean(text: object) -> str:
    """Return `text` on one line without control characters, which could steer a terminal; they become '?'."""
    words = " ".join(unicodedata.normalize("NFC", str(text)).split())
    if words.isascii() and words.isprintable():  # nearly always: saves going through each character
        return words
    return "".join(c if c.isprintable() and not unicodedata.category(c).startswith("M") else "?" for c in words)


def columns(text: str) -> int:
    """Return how many columns a terminal needs for clean text: East Asian wide characters take two."""
    return len(text) if text.isascii() else sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap(text: object, first: str = "", rest: str = "", width: int = WIDTH) -> str:
    """Return `text` in lines of at most `width` columns, prefixed with `first` and then `rest`, which are equally wide.

    A word that is too long for a line is broken.
    """
    room = width - columns(first)
    lines = [""]
    for word in clean(text).split(" "):
        for piece in _pieces(word, room):
            joined = f"{lines[-1]} {piece}" if lines[-1] else piece
            if columns(joined) <= room:
                lines[-1] = joined
            else:
                lines.append(piece)
    return "\n".join((rest if number else first) + line for number, line in enumerate(lines))


def entry(name: object, text: object, mark: str = "") -> str:
    """Return `name` in a column of its own and the lines of `text` beside it, or below it where the name is long."""
    indent = " " * LABEL
    parts = str(text).splitlines() or [""]
    own_line, lead = [], mark + left(name, LABEL - columns(mark))
    if columns(lead) > LABEL or not lead.endswith(" "):
        own_line, lead = [wrap(name, mark, mark)], indent
    return "\n".join([*own_line, wrap(parts[0], lead, indent), *(wrap(part, indent, indent) for part in parts[1:])])


def left(text: object, width: int) -> str:
    """Return clean text, padded with spaces to `width` columns."""
    words = clean(text)
    return words + " " * (width - columns(words))


def above(name: object, width: int) -> str:
    """Return `name` as the first cell of a row, or on a line of its own above the row where it is too long."""
    cell = left(name, width)
    return cell if columns(cell) <= width else f"{wrap(name)}\n{' ' * width}"


def finish(rendered: str) -> str:
    """Return rendered text without trailing spaces and with one newline at its end."""
    return "\n".join(line.rstrip() for line in rendered.strip().split("\n")) + "\n"


def _pieces(word: str, room: int) -> list[str]:
    if columns(word) <= room:
        return [word]
    pieces = [""]
    for character in word:
        if columns(pieces[-1] + character) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces
