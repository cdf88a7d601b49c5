"""Queries without sampling among those that are sampled, in transformers' continuous batching.

Its steps sample all tokens or none; but what may be chosen can be said for each query apart. Of a greedy query only the
most likely token is left to be drawn.
"""

from __future__ import annotations

from typing import Any

WORD = "greedy"


def allow(manager: Any) -> bool:
    """Let the manager take `greedy=True` with a query, before its cache is made; False: this transformers cannot."""
    try:
        from transformers.generation.continuous_batching import cb_logits_processors
    except ImportError:
        return False
    processors = manager.logit_processor
    # First: the others may make equal what is not.
    processors.logits_processor.insert(0, _make(cb_logits_processors.ContinuousBatchingLogitsProcessor))
    processors.tensors_required += 1
    processors.supported_keys[WORD] = bool
    processors.do_processing = True
    return True


def _make(base: Any) -> Any:
    import torch

    class Greedy(base):  # type: ignore[misc] # transformers has no types
        supported_kwargs = {WORD: bool}  # noqa: RUF012 # as the base class declares it
        ignored_kwargs = ()

        def fill_defaults(self, int32_tensor: Any) -> None:
            int32_tensor.fill_(0)

        def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Any:
            asked = [int(one.state.logit_processor_kwargs.get(WORD, False)) for one in requests_with_new_token]
            return torch.tensor(asked, dtype=torch.int32)

        def __call__(self, scores: Any, tensor_arg: Any) -> Any:
            """Return the scores, (tokens, vocabulary), with all but the highest struck out where that is asked."""
            best = scores.argmax(dim=-1, keepdim=True)
            alone = torch.full_like(scores, -torch.inf).scatter(-1, best, 0.0)
            return torch.where(tensor_arg[: scores.size(0)].bool()[:, None], alone, scores)

    return Greedy()
