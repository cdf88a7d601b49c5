"""An engine that only waits: for trying the orchestration and the arithmetic. Its results say SIMULATED."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.errors import InputError
from benchmark.node import interfaces
from benchmark.node.interfaces import Answer, Listener, Query, now_ns
from benchmark.records import EngineInfo


class Options(BaseModel):
    """The profile's `engine_options`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    load_s: float = Field(0, ge=0, description="seconds that loading takes")
    ttft_ms: float = Field(5, ge=0, description="milliseconds until the first token")
    tpot_ms: float = Field(0.2, ge=0, description="milliseconds per further token")
    fail_indexes: tuple[int, ...] = Field((), description="queries that fail")


class Engine(interfaces.Engine):
    """Answers after known delays, with token ids that depend on the seed alone."""

    def load(self) -> EngineInfo:
        """Wait `load_s`. Raises InputError for options that it does not know."""
        try:
            self.timing = Options.model_validate(self.options)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise InputError(f"engine_options of the simulated engine: {where}: {problem['msg']}.") from None
        time.sleep(self.timing.load_s)
        return EngineInfo(name="simulated", simulated=True, details=self.timing.model_dump(mode="json"))

    def submit(self, query: Query, listener: Listener) -> None:
        """Sleep as long as a model would compute."""
        if query.index in self.timing.fail_indexes:
            listener.failed(query, "The simulated engine was told to fail this query.")
            return
        tokens = self.generation.max_new_tokens
        time.sleep(self.timing.ttft_ms / 1000)
        listener.first_token(query, now_ns())
        time.sleep(self.timing.tpot_ms * (tokens - 1) / 1000)
        token_ids = tuple((query.seed + position) % 1000 for position in range(tokens))
        listener.completed(query, now_ns(), Answer.of(len(query.prompt.text.split()), token_ids))
