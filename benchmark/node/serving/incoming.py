"""Parse a request for an engine: the counterpart of `request.py`, for engines that have no server of their own.

An engine is made for one profile. A request that differs from the profile is refused, naming the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.faults import sentences
from benchmark.node.interfaces import Prompt, Query
from benchmark.node.model.prompting import TEMPLATE_DATE
from benchmark.node.serving.request import Api
from benchmark.profiles import Generation

Tokens = Annotated[int, Field(ge=0)]


class Refused(Exception):
    """A refused request: the status, and the reason in a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Usage(_Part):
    include_usage: bool = False


class _Message(_Part):
    role: Literal["user"]
    content: str


class _Template(_Part):
    date_string: Annotated[str, Field(pattern=f"^{TEMPLATE_DATE}$")] = TEMPLATE_DATE


class _Asked(_Part):
    """The fields that both routes accept."""

    model: str
    stream: Literal[True] = Field(description="true: answers are streamed")
    return_token_ids: Literal[True] = Field(description="true: answers are token ids, without text")
    stream_options: _Usage = _Usage()
    max_tokens: Tokens = Field(ge=1)
    min_tokens: Tokens = 0
    ignore_eos: bool = False
    seed: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = Field(0, ge=0, le=0)
    repetition_penalty: float = Field(1, ge=1, le=1)


class _Completion(_Asked):
    prompt: Annotated[list[Tokens], Field(min_length=1, description="the ids of its tokens")]


class _Chat(_Asked):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=1, description="one user message")]
    chat_template_kwargs: _Template = _Template()


_ASKED: dict[Api, type[_Completion] | type[_Chat]] = {"completions": _Completion, "chat": _Chat}


@dataclass(frozen=True)
class Asked:
    """A request as the engine gets it. `most`: how many tokens of its answer are sent."""

    query: Query
    most: int
    usage: bool


def read(api: Api, body: bytes, index: int, model: str, generation: Generation) -> Asked:
    """Return the query in the body of a request to an engine made for `generation`. Raises Refused."""
    kind = _ASKED[api]
    try:
        asked = kind.model_validate_json(body)
    except ValidationError as error:
        if not error.errors(include_url=False)[0]["loc"]:
            raise Refused(400, "The body of the request is not a JSON object.") from None
        raise Refused(400, " ".join(sentences(error, kind, before="", noun="a field of this route"))) from None
    if asked.model != model:
        raise Refused(404, f"The model {asked.model[:200]} does not exist: this server serves {model}.")
    greedy = asked.temperature == 0
    _require_sampling(asked, generation, greedy)
    exactly = _exactly(asked, generation)
    if isinstance(asked, _Chat):
        prompt = Prompt(id=str(index), text=asked.messages[0].content, output_tokens=exactly)
    else:
        prompt = Prompt(id=str(index), text="", token_ids=tuple(asked.prompt), output_tokens=exactly)
    query = Query(index, prompt, asked.seed, greedy=greedy and generation.temperature > 0)
    return Asked(query, asked.max_tokens, asked.stream_options.include_usage)


def _require_sampling(asked: _Asked, generation: Generation, greedy: bool) -> None:
    own = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": generation.top_k or -1}
    for name, has in own.items():
        # These do not matter without sampling.
        if not greedy and (wanted := getattr(asked, name)) not in (None, has):
            raise Refused(400, f"{name} is {wanted:g}, but this server samples with {has:g}.")


def _exactly(asked: _Asked, generation: Generation) -> int | None:
    """Return the exact length of the answer; None: the answer is as the generation says, or the beginning of it."""
    least, longest = generation.min_new_tokens, generation.max_new_tokens
    if asked.max_tokens > longest:
        raise Refused(
            400, f"max_tokens is {asked.max_tokens}, but this server's answers have at most {longest} tokens."
        )
    if asked.ignore_eos:
        return None if least == longest == asked.max_tokens else asked.max_tokens
    if asked.min_tokens != min(least, asked.max_tokens):
        raise Refused(400, f"min_tokens is {asked.min_tokens}, but this server's answers have at least {least} tokens.")
    return None
