"""transformers' `generate`, one prompt at a time, on one device; streaming, so that the first token has a time."""

from __future__ import annotations

from typing import Any

from benchmark.errors import InputError
from benchmark.node import interfaces
from benchmark.node.interfaces import Answer, Listener, Query, now_ns
from benchmark.node.model import load_model
from benchmark.node.prompting import encode
from benchmark.records import EngineInfo


class Engine(interfaces.Engine):
    """One replica. The answer to a query depends on its seed, not on what was asked before."""

    def load(self) -> EngineInfo:
        """Load the model; raises SetupError where it is not there or does not fit."""
        if self.options:
            raise InputError(f"The sequential engine has no options; the profile gives {', '.join(self.options)}.")
        loaded = load_model(self.settings)
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._config = self._generation_config(self.generation.temperature)
        self._greedy = self._generation_config(0)
        return EngineInfo(name="sequential", replicas=1, details=loaded.details)

    def submit(self, query: Query, listener: Listener) -> None:
        """Tokenize, generate, report. Returns when the answer is complete."""
        import torch

        token_ids = encode(self._tokenizer, query.prompt)
        inputs = torch.tensor([token_ids], device=self._model.device)
        torch.manual_seed(query.seed)
        watch = _TokenWatch(query, listener)
        with torch.inference_mode():
            self._model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=self._greedy if query.greedy else self._config,
                streamer=watch,
            )
        listener.completed(query, watch.last_ns, Answer.of(len(token_ids), tuple(watch.token_ids)))

    def _generation_config(self, temperature: float) -> Any:
        """Return the profile's settings, each one explicit: what is left out would come from the model's own file."""
        from transformers import GenerationConfig

        wanted, own = self.generation, self._model.generation_config
        end = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        first_end = end[0] if isinstance(end, list) else end
        pad = self._tokenizer.pad_token_id
        sampling = temperature > 0
        return GenerationConfig(
            max_new_tokens=wanted.max_new_tokens,
            min_new_tokens=wanted.min_new_tokens,
            do_sample=sampling,
            temperature=temperature if sampling else 1.0,
            top_p=wanted.top_p,
            top_k=wanted.top_k,
            repetition_penalty=1.0,
            num_beams=1,
            use_cache=True,
            eos_token_id=end,
            pad_token_id=first_end if pad is None else pad,
        )


class _TokenWatch:
    """A streamer: `generate` puts the prompt first, then each new token once it has left the GPU."""

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
        if not self.token_ids:
            self._listener.first_token(self._query, self.last_ns)
        self.token_ids += value.flatten().tolist()

    def end(self) -> None:
        """Nothing is held back, so there is nothing to flush."""
