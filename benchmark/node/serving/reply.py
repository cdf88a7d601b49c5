"""A streamed reply, read event by event, until it is an answer or the reason why there is none."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic_core import from_json

from benchmark.node.interfaces import Answer
from benchmark.node.serving.sse import Event, EventParser
from benchmark.node.serving.words import body_words, message, shown

T = TypeVar("T")

# Output read so soon after other output counts as one piece with it: no model computes a token that fast, and output
# that was held back on the way arrives like that.
APART_NS = 500_000

# Finish reasons of an incomplete answer: the server gave up, or cut it.
ABORTED = (
    *("abort", "aborted", "error", "cancel", "canceled", "cancelled", "timeout", "content_filter"),
    "insufficient_system_resource",
)
# How some servers write that there is no finish reason yet.
_NO_REASON = ("null", "none")
_KEEP_ALIVES = ("ping", "heartbeat", "keepalive", "keep-alive")
# Members of a delta that hold output -> the kind of output in the result.
_OUTPUT = {
    "content": "content",
    "text": "content",
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "refusal": "refusal",
    "tool_calls": "tool calls",
    "function_call": "tool calls",
    "audio": "audio",
}
# Parts of such a member that are not output: they come before the first token, or describe the part.
_NO_OUTPUT = ("id", "index", "type", "expires_at", "role", "format", "status", "signature")


class ReplyError(Exception):
    """An unanswered query; the message is a sentence."""


class Reply:
    """One streamed answer, and when its parts were read. docs/metrics.md says what is counted and how.

    `first_ns` is when the first output was read: text, token ids, reasoning, a refusal, a tool call, or audio, but not
    a role or the id of a call. `last_ns` is when the last output or the finish reason was read: a last token without
    text (end of sequence) comes with the reason. The usage, [DONE] and the end of the connection are not tokens, so
    their times do not count. `pieces` counts the moments at which output was read, at least APART_NS apart.
    """

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.last_ns = 0
        self.whole_ns: int | None = None
        """When it became certain that no more output follows."""
        self.pieces = 0
        self.kinds: set[str] = set()
        """Kinds of output: content, reasoning, tool calls, refusal, audio."""
        self.model = ""
        """The model's name in the chunks; empty: they have none."""
        self._parser = EventParser()
        self._done = False
        self._finish: str | None = None
        self._finish_apart = False
        self._output_ns: int | None = None
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._first_ids = 0
        self._prompt_ids: int | None = None
        self._output_chunks = 0
        self._usage: dict[str, int] = {}
        self._events = 0

    @property
    def whole(self) -> bool:
        """Whether the reply is complete: [DONE] was read, or the finish reason and a plausible usage."""
        return self.whole_ns is not None

    def feed(self, received: bytes, at_ns: int) -> None:
        """Process bytes of the stream, read at `at_ns`. Raises ReplyError if they are an error or invalid."""
        for event in self._parser.feed(received):
            self._take(event, at_ns)
        if self.whole_ns is None and self._finish is not None:
            usage = self._usage.get("completion_tokens", 0)
            # A usage of less than one token per chunk came too early: another one follows, or the end.
            if usage and usage >= self._output_chunks:
                self.whole_ns = at_ns

    def end(self, at_ns: int) -> None:
        """Process the end of the stream, read at `at_ns`, and a last event that lacks its empty line.

        Raises ReplyError if the server did not stream, or explained why it stopped in text that is not an event.
        """
        for event in self._parser.close():
            if _is_whole(event.data):
                self._take(event, at_ns)
        if self._finish is not None or self._done:
            self.whole_ns = self.whole_ns or at_ns
        elif words := body_words(self._parser.other):
            how = "broke off" if self._events else "did not stream, but answered"
            raise ReplyError(f"The server {how}: {words}")

    def _take(self, event: Event, at_ns: int) -> None:
        data = event.data.strip()
        if not data or data[:1] == b":" or (event.type and event.type.lower() in _KEEP_ALIVES):
            return  # a keep-alive; some servers write it as a comment after `data: `
        self._events += 1
        if data == b"[DONE]":
            self._done = True
            self.last_ns = self.last_ns or at_ns
            self.whole_ns = at_ns
            return
        if event.type == "error":
            raise ReplyError(f"The server broke off with an error: {body_words(data) or 'it gave no reason.'}")
        try:
            chunk = from_json(data)
        except ValueError:
            raise ReplyError(f"The server streamed invalid JSON: {shown(data)}") from None
        if not isinstance(chunk, dict):
            raise ReplyError(f"The server streamed JSON that is not an object: {shown(data)}")
        try:
            self._take_chunk(chunk, at_ns)
        except (AttributeError, TypeError):
            raise ReplyError(f"The server streamed a chunk of an unknown form: {shown(data)}") from None

    def _take_chunk(self, chunk: dict[str, Any], at_ns: int) -> None:
        _refuse_error(chunk)
        if isinstance(model := chunk.get("model"), str):
            self.model = model or self.model
        if reported := chunk.get("usage"):
            self._take_usage(reported)
        prompt_ids = chunk.get("prompt_token_ids")
        for choice in chunk.get("choices") or ():
            _refuse_error(choice)
            if reported := choice.get("usage"):
                self._take_usage(reported)
            output = self._take_delta(choice.get("delta") or choice.get("message") or choice)
            if token_ids := choice.get("token_ids"):
                self._token_ids += [_checked(token, int) for token in _checked(token_ids, list)]
            if output or token_ids:
                self._note_output(at_ns)
                self._first_ids += len(token_ids or ()) if self.pieces == 1 else 0
            prompt_ids = prompt_ids or choice.get("prompt_token_ids")
            if finish := choice.get("finish_reason"):
                self._take_finish(finish, at_ns)
        if prompt_ids:
            self._prompt_ids = len(prompt_ids)

    def _take_delta(self, delta: dict[str, Any]) -> bool:
        """Process a delta, and return whether it has output."""
        output = False
        for name, value in delta.items():
            if not value or (kind := _OUTPUT.get(name)) is None:
                continue
            if not isinstance(value, str):
                if not isinstance(value, list | dict):
                    raise TypeError
                if not _has_output(value):
                    continue
            output = True
            self.kinds.add(kind)
            if kind == "content":
                self._text += _texts(value)
        return output

    def _take_finish(self, finish: Any, at_ns: int) -> None:
        reason = str(finish.get("type") if isinstance(finish, dict) else finish)
        if reason.lower() not in _NO_REASON:
            self._finish = reason
            self._finish_apart = self._output_ns is None or at_ns - self._output_ns >= APART_NS
            self.last_ns = at_ns

    def _note_output(self, at_ns: int) -> None:
        self._output_chunks += 1
        if self._output_ns is None or at_ns - self._output_ns >= APART_NS:
            self.pieces += 1
        if self.first_ns is None:
            self.first_ns = at_ns
        self._output_ns = self.last_ns = at_ns

    def _take_usage(self, reported: Any) -> None:
        """Keep the largest of each count: some servers report usage with every chunk, or too early and empty."""
        if not isinstance(reported, dict):
            return
        details = reported.get("prompt_tokens_details")
        counts = {
            "completion_tokens": _count(reported.get("completion_tokens")),
            "prompt_tokens": _count(reported.get("prompt_tokens")),
            "cached_tokens": _count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        }
        for name, count in counts.items():
            if count is not None:
                self._usage[name] = max(count, self._usage.get(name, 0))

    @property
    def first_id(self) -> int | None:
        """The first token's id; None if the server sends none."""
        return self._token_ids[0] if self._token_ids else None

    @property
    def counting(self) -> str:
        """The source of this answer's token count."""
        if self._token_ids:
            return "token ids"
        return "usage" if "completion_tokens" in self._usage else "nothing: neither token ids nor usage"

    def answer(self, own_input_tokens: int | None) -> Answer:
        """Return the answer after the stream has ended; `own_input_tokens`: number of ids in the prompt, if it had ids.

        Raises ReplyError if it is incomplete or its tokens cannot be counted.
        """
        if not self._events:
            raise ReplyError("The server answered with nothing at all: status 200, but no events.")
        if self._finish is not None and self._finish.lower() in ABORTED:
            raise ReplyError(f"The server gave up: finish_reason is {shown(self._finish)}.")
        if self._finish is None and not self._done:
            raise ReplyError("The stream ended too early: neither a finish_reason nor [DONE] came.")
        usage = self._usage.get("completion_tokens")
        if usage is None and not self._token_ids:
            raise ReplyError("The server sent neither token ids nor usage: its tokens cannot be counted.")
        # A chunk with output has at least one token: a usage below that is wrong, and is reported as such.
        output_tokens = len(self._token_ids) or max(usage or 0, self._output_chunks)
        inputs = own_input_tokens or self._prompt_ids or self._usage.get("prompt_tokens")
        if inputs is None:
            raise ReplyError("The server does not report how many tokens the prompt had.")
        return Answer(
            input_tokens=inputs,
            output_tokens=output_tokens,
            token_ids=tuple(self._token_ids),
            text="".join(self._text),
            # If the last token had no text, the finish reason came in its place and counts as a piece.
            pieces=self.pieces + (self._finish_apart and output_tokens == self.pieces + 1),
            first_piece_tokens=self._first_ids or None,
            usage_tokens=usage if usage != output_tokens else None,
            cached_tokens=self._usage.get("cached_tokens"),
            model=self.model,
            whole_ns=self.whole_ns,
        )


def _is_whole(data: bytes) -> bool:
    """Return whether the last event of a stream is complete; False: it was cut off."""
    try:
        from_json(data)
    except ValueError:
        return data.strip() == b"[DONE]"
    return True


def _has_output(value: Any) -> bool:
    """Return whether a member of a delta holds generated output."""
    if isinstance(value, list):
        return any(map(_has_output, value))
    if isinstance(value, dict):
        return any(_has_output(one) for name, one in value.items() if name not in _NO_OUTPUT)
    return bool(value)


def _refuse_error(part: dict[str, Any]) -> None:
    if part.get("error") or part.get("object") == "error":
        raise ReplyError(f"The server broke off with an error: {message(part)}")


def _texts(content: str | list[Any] | dict[str, Any]) -> list[str]:
    """Return the text of `content`: a string, or a list of parts."""
    if isinstance(content, str):
        return [content]
    parts = _checked(content, list)
    return [part if isinstance(part, str) else str(part.get("text") or "") for part in parts]


def _count(value: Any) -> int | None:
    """Return a non-negative whole number, even if it is written as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63 or value != int(value):
        return None
    return int(value)


def _checked(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError
    return value
