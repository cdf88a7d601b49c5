"""transformers' `generate`, one prompt at a time, on one device; streaming, to get the time of the first token."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from benchmark.node import interfaces
from benchmark.node.interfaces import Answer, Listener, Query, now_ns
from benchmark.node.model.architecture import read_config, text_config
from benchmark.node.model.generation import generation_config
from benchmark.node.model.load import LoadedModel, find_snapshot, load_model
from benchmark.node.model.prompting import POSITIONS, check_prompt, encode, require_room, require_vocabulary
from benchmark.node.options import check
from benchmark.node.startup import process_age_s
from benchmark.records import EngineInfo
from benchmark.sequential_options import Options


class Engine(interfaces.Engine):
    """One replica. The answer to a query depends on its seed, not on earlier queries."""

    def parts(self) -> int:
        """Return over how many GPUs the model is split; this process is one of that many."""
        return check(Options, self.options, "The sequential engine").tensor_parallel

    def load(self) -> EngineInfo:
        """Load the model.

        Raises SetupError if it is missing or does not fit, InputError for prompts with another vocabulary.
        """
        parts = self.parts()
        if self.demands.ids:
            text, most = text_config(read_config(find_snapshot(self.settings))), self.generation.max_new_tokens
            require_vocabulary(text, self.demands)
            require_room(getattr(text, "max_position_embeddings", None), self.demands, most, POSITIONS)
        return self.start(load_model(self.settings, parts=parts, texts=self.demands.needs_template))

    def start(self, loaded: LoadedModel) -> EngineInfo:
        """Get ready with a loaded model."""
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        least = {"min_new_tokens": self.generation.min_new_tokens or None}  # 0 would cost a check for every token
        self._config = generation_config(loaded, self.generation, self.generation.temperature, **least)
        self._greedy = generation_config(loaded, self.generation, 0, **least)
        before: Any = loaded.details.get("startup_s") or {}
        startup: dict[str, JsonValue] = {**before, "since_process_start": process_age_s()}
        return EngineInfo(name="sequential", replicas=1, details={**loaded.details, "startup_s": startup})

    def submit(self, query: Query, listener: Listener) -> None:
        """Tokenize, generate, report. Returns when the answer is complete."""
        import torch

        token_ids = encode(self._tokenizer, query.prompt)
        most = query.prompt.output_tokens or self.generation.max_new_tokens
        # Beyond its positions a model answers nonsense, or breaks the GPU.
        check_prompt(token_ids, text_config(self._model.config), most)
        inputs = torch.tensor([token_ids], device=self._model.device)
        torch.manual_seed(query.seed)
        watch = _TokenWatch(query, listener)
        with torch.inference_mode():
            self._model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=self._greedy if query.greedy else self._config,
                streamer=watch,
                **_exactly(query),
            )
        listener.completed(query, watch.last_ns, Answer.of(len(token_ids), tuple(watch.token_ids)))


def _exactly(query: Query) -> dict[str, int]:
    """Return arguments of `generate` for the answer's length, in addition to its configuration."""
    tokens = query.prompt.output_tokens
    return {} if tokens is None else {"min_new_tokens": tokens, "max_new_tokens": tokens}


class _TokenWatch:
    """A streamer: `generate` first passes the prompt, then each new token once it has left the GPU."""

    def __init__(self, query: Query, listener: Listener) -> None:
        self.token_ids: list[int] = []
        self.last_ns = 0
        self._query = query
        self._listener = listener
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.last_ns = now_ns()
        token_ids = value.flatten().tolist()
        if not self.token_ids:
            self._listener.first_token(self._query, self.last_ns, token_ids[0])
        self.token_ids += token_ids

    def end(self) -> None:
        """Do nothing: no token is held back."""
