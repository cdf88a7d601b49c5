"""A server's own message about what went wrong, on one line: from JSON, HTML, tracebacks or plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

MAX_SHOWN = 300
"""Characters of a server's own message that are kept."""
MAX_SEARCHED = 2**16

# The last line of a traceback, also after the prefix of a logger or process; errors of command-line parsers; and what
# the loader or the C library print when a process crashes outside Python.
ERROR = re.compile(
    r"(?<!raise )(?<!except )\b([A-Z]\w*)?(Error|Exception|Exit|Interrupt|Timeout)(: |$)"
    r"|: (fatal )?error: |\bdied unexpectedly\b"
    r"|\bFatal Python error: |\bterminate called |\bSegfault encountered|: error while loading shared libraries: "
    r"|: symbol lookup error: |: Assertion .+ failed\.|\b(double free or|free\(\): invalid|malloc\(\): |corrupted size)"
)
# Terminal escape sequences (colours, window titles) and control characters.
_COLOUR = re.compile(
    r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(\x07|\x1b\\)|[@-Z\\^_])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
# What pydantic appends to an error, progress bars, and what nanobind prints at the end of every process.
_ADDED = re.compile(
    r" *\[type=\w+, input_value=.*|^.*For further information visit https://errors\.pydantic\.dev\S*$"
    r"|^.* \d+/\d+ \[\d+:\d+<.*$"
    r"|^.*(\bleaked (function|type|instance|\d+) |- \.\.\. skipped remainder|reference counting issue in).*$",
    re.MULTILINE,
)
_FRAME = re.compile(r'File "(?:[^"]*/)?([^"]*)", (line \d+)')
_TRACEBACK = "Traceback (most recent call last):"
# Source lines that raise errors with a message for users.
_ON_PURPOSE = re.compile(r"^raise\b|pydantic|\bsys\.exit\(")
# What Python writes between two tracebacks, and before a traceback that ends a child process.
_JOINT = re.compile(
    r"^(During handling of the above exception, another|The above exception was the direct cause of the following)"
    r" exception( occurred)?:$|^Process \S+:$"
)
# The prefix of vLLM's processes and loggers: "(EngineCore pid=7) ERROR 11-28 07:09:11 [core.py:700] ".
_PREFIX = re.compile(r"^(\([^()]* pid=[^()]*\) ?)?([A-Z]+ [\d-]+ [\d:.,]+ (\[[^\]]*\])? ?)?")
# A warning of Python; the next line shows its source.
_WARNING = re.compile(r"\S:\d+: \w*Warning: ")
# Errors that only refer to another one.
_FOLLOWS = re.compile(
    r"(see|for|check) (the )?(root cause|stack ?trace|error|logs?)|root cause\(s\)|failed core proc"
    r"|Error: cancelled$",
    re.I,
)
_INVISIBLE = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.I)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title\s*>", re.DOTALL | re.I)
_TAG = re.compile(r"<[^>]*>")


def uncoloured(text: str) -> str:
    """Return text without terminal escape sequences and control characters."""
    return _COLOUR.sub("", text)


def written(log: str) -> list[str]:
    """Return the lines of a log that have content."""
    lines = _ADDED.sub("", "\n".join(uncoloured(log).splitlines())).splitlines()
    return [line.rstrip() for line in lines if without_prefix(line).strip()]


def shown(text: str | bytes) -> str:
    """Return a server's text on one line, cut to MAX_SHOWN characters."""
    if isinstance(text, bytes):
        text = text[:MAX_SEARCHED].decode("utf-8", errors="replace")
    return " ".join(text.split())[:MAX_SHOWN]


def message(content: Any) -> str:
    """Return the message of an error object in one of the usual forms, cut to MAX_SHOWN characters."""
    while isinstance(content, dict):
        content = (
            content.get("error")
            or content.get("message")
            or content.get("detail")
            or content.get("error_description")
            or content.get("title")
            or str(content)
        )
    return _plain(content) if isinstance(content, str) else shown(str(content))


def body_words(body: str | bytes) -> str:
    """Return the message in the body of a response, whatever its form; empty for an empty body."""
    text = (body.decode("utf-8", errors="replace") if isinstance(body, bytes) else body).lstrip("\ufeff")
    try:
        return message(from_json(text))
    except ValueError:
        return _plain(text)


# A log level below error, in capitals before the message.
_MILD = re.compile(r"^(?:\([^)]*\)\s*)?\W*(?:DEBUG|INFO|WARN|WARNING)\b")


def causes(lines: Sequence[str]) -> list[str]:
    """Return the errors in the lines of a log, in order, each with the lines that explain it.

    Explaining lines are indented, or continue the last line of a traceback. Assertions, and errors that were not raised
    on purpose, say little: their line of source is added. Errors that only refer to another one are returned only if
    there are no others; lines with a log level below error are skipped.
    """
    found: list[str] = []
    places: list[str] = []
    explaining = within = False
    raised: list[str] = []
    before = ""
    for line in lines:
        own = without_prefix(line)
        same, before = before == (prefix := line.removesuffix(own)), prefix
        if frame := _FRAME.search(line):
            raised, explaining = [f"{frame[1]}, {frame[2]}"], False
        elif ERROR.search(line) and not is_mild(line):
            found.append(line.strip())
            places.append(f" ({': '.join(raised)})" if len(raised) > 1 and not _ON_PURPOSE.search(raised[1]) else "")
            raised, explaining, within = [], True, bool(raised)
        elif explaining and (own.startswith("  ") or (within and same and not _starts_another(own))):
            found[-1] = f"{found[-1]} {own.strip()}"
        else:
            explaining = False
            if len(raised) == 1:
                raised.append(own.strip())
    found = [f"{line}{place}" for line, place in zip(found, places, strict=True)]
    return [line for line in found if not points_elsewhere(line)] or found


def _starts_another(line: str) -> bool:
    return _TRACEBACK in line or _JOINT.search(line) is not None


def is_mild(line: str) -> bool:
    """Return whether a line has a log level below error."""
    return _MILD.search(line) is not None


def without_prefix(line: str) -> str:
    """Return a line of a log without the prefix of a logger or process."""
    return _PREFIX.sub("", line)


def points_elsewhere(line: str) -> bool:
    """Return whether an error only refers to another one."""
    return _FOLLOWS.search(line) is not None


def without_frames(lines: Sequence[str]) -> list[str]:
    """Return the lines of a log without Python's warnings and the frames, source and carets of tracebacks.

    Nothing else comes between a frame and the line that names the error; each may have the prefix of a logger or
    process.
    """
    kept: list[str] = []
    inside = warned = False
    for line in lines:
        own = without_prefix(line)
        source, warned = warned and own.startswith("  "), _WARNING.search(own) is not None
        if source or warned or _JOINT.search(own):
            continue
        if _TRACEBACK in line or _FRAME.search(line):
            inside = True
        elif not inside or ERROR.search(line):
            inside = False
            kept.append(line)
    return kept


def _plain(text: str) -> str:
    text = text[:MAX_SEARCHED]
    if (_TRACEBACK in text or _FRAME.search(text)) and (found := causes(text.splitlines())):
        return shown(found[-1])
    if re.match(r"\s*<(!doctype|html|\?xml|head|body)\b", text, re.I):
        title = _TITLE.search(text)
        words = shown(_TAG.sub(" ", _INVISIBLE.sub(" ", _TITLE.sub(" ", text))))
        heading = shown(_TAG.sub(" ", title[1])) if title else ""
        return shown(words if words.startswith(heading) else f"{heading}: {words}" if words else heading)
    return shown(text)
