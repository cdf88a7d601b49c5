"""What a server streams back, event by event, until it is an answer or the reason why there is none."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic_core import from_json

from benchmark.node.interfaces import Answer

T = TypeVar("T")

MOST_SHOWN = 300
"""Characters of a server's own message that are kept."""

# Ends of an answer that are none: the server gave up.
ABORTED = ("abort", "error")


class ReplyError(Exception):
    """The server did not answer the query; the message is a sentence."""


class Reply:
    """One streamed answer. Tokens are counted from ids, else from the server's usage, never from chunks.

    `first_ns` is when the first chunk that held text or token ids was read (a chunk with only a role holds none); an
    answer without any, such as one of special tokens only, has it from its end. `last_ns` is when the last chunk was
    read that held text, ids or the finish reason: with the reason comes the last token where that one has no text (end
    of sequence). The usage may follow in a chunk of its own, and so do [DONE] and the end of the connection: they are
    no tokens, so their time is not the answer's.
    """

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.last_ns = 0
        self.done = False
        """Whether [DONE] was read: nothing that matters can follow."""
        self.model = ""
        """The model's name in the chunks; empty: they have none."""
        self._finish: str | None = None
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._prompt_ids: int | None = None
        self._usage: dict[str, Any] | None = None
        self._events = 0

    def take(self, data: bytes, at_ns: int) -> None:
        """Take the data of one event, read at `at_ns`. Raises ReplyError where it is an error or makes no sense."""
        self._events += 1
        if data == b"[DONE]":
            self.done = True
            self.last_ns = self.last_ns or at_ns
            return
        try:
            chunk = from_json(data)
        except ValueError:
            raise ReplyError(f"The server streamed what is not JSON: {shown(data)}") from None
        if not isinstance(chunk, dict):
            raise ReplyError(f"The server streamed JSON that is no object: {shown(data)}")
        if chunk.get("error") or chunk.get("object") == "error":
            raise ReplyError(f"The server broke off with an error: {message(chunk)}")
        try:
            self._take_chunk(chunk, at_ns)
        except (AttributeError, TypeError):
            raise ReplyError(f"The server streamed a chunk of unknown form: {shown(data)}") from None

    def _take_chunk(self, chunk: dict[str, Any], at_ns: int) -> None:
        if isinstance(model := chunk.get("model"), str):
            self.model = model or self.model
        self._usage = chunk.get("usage") or self._usage
        prompt_ids = chunk.get("prompt_token_ids")
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or choice
            text = delta.get("text") or delta.get("content")
            if text:
                self._text.append(_checked(text, str))
            token_ids = choice.get("token_ids")
            if token_ids:
                self._token_ids += [_checked(token, int) for token in _checked(token_ids, list)]
            prompt_ids = prompt_ids or choice.get("prompt_token_ids")
            finish = choice.get("finish_reason")
            # What a reasoning model thinks is no part of its answer, but it is tokens.
            if text or token_ids or delta.get("reasoning_content") or delta.get("reasoning"):
                self.first_ns = self.first_ns or at_ns
                self.last_ns = at_ns
            if finish:
                self._finish = finish if isinstance(finish, str) else str(finish.get("type"))
                self.last_ns = at_ns
        if prompt_ids:
            self._prompt_ids = len(prompt_ids)

    @property
    def counting(self) -> str:
        """What this answer's tokens are counted from."""
        return "token ids" if self._token_ids else "usage" if self._usage else "nothing: neither token ids nor usage"

    def answer(self, own_input_tokens: int | None) -> Answer:
        """Return the answer when the stream has ended; `own_input_tokens`: how many ids the prompt had, if it had ids.

        Raises ReplyError where it is not whole or its tokens cannot be counted.
        """
        if not self._events:
            raise ReplyError("The server answered with no event at all: does it stream?")
        if self._finish in ABORTED:
            raise ReplyError(f"The server gave up: finish_reason is {self._finish}.")
        if self._finish is None and not self.done:
            raise ReplyError("The stream ended in the middle: neither a finish_reason nor [DONE] came.")
        counted = self._counted("completion_tokens")
        if counted is None and not self._token_ids:
            raise ReplyError("The server sent neither token ids nor usage: its tokens cannot be counted.")
        if counted is not None and self._token_ids and counted != len(self._token_ids):
            raise ReplyError(f"The server sent {len(self._token_ids)} token ids and counts {counted} tokens itself.")
        inputs = own_input_tokens or self._prompt_ids or self._counted("prompt_tokens")
        if inputs is None:
            raise ReplyError("The server does not tell how many tokens the prompt had.")
        output_tokens = len(self._token_ids) or counted or 0
        return Answer(inputs, output_tokens, tuple(self._token_ids), "".join(self._text), model=self.model)

    def _counted(self, name: str) -> int | None:
        value = self._usage.get(name) if isinstance(self._usage, dict) else None
        return value if isinstance(value, int) and value >= 0 else None


def _checked(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError
    return value


def message(content: Any) -> str:
    """Return what an error object of one of the usual forms says, cut to MOST_SHOWN characters."""
    while isinstance(content, dict):
        content = content.get("error") or content.get("message") or content.get("detail") or str(content)
    return shown(content if isinstance(content, str) else str(content))


def shown(text: str | bytes) -> str:
    """Return text of a server on one line, cut to MOST_SHOWN characters."""
    if isinstance(text, bytes):
        text = text[: 4 * MOST_SHOWN].decode("utf-8", errors="replace")
    return " ".join(text.split())[:MOST_SHOWN]
