"""What may be chosen next, said for each query apart, in transformers' continuous batching.

Its steps sample all tokens or none, and it drops the processor with which `generate` keeps answers from ending. So
each processor here has a number per query among a step's inputs. It is worked out before the step, on the host, and
lies in a tensor that stays where it is; the step itself never looks at values from Python: CUDA graphs need that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

GREEDY, MIN_NEW_TOKENS = "greedy", "min_new_tokens"
"""What `add_request` takes, once the processor is inserted."""


class Greedy(ContinuousBatchingLogitsProcessor):  # type: ignore[misc] # transformers has no types here
    """Leaves only the most likely token to be drawn, where a query asks for that."""

    supported_kwargs = {GREEDY: bool}  # noqa: RUF012 # as the base class declares it
    ignored_kwargs = ()

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Not greedy."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Return 1 for each query that is greedy."""
        asked = [int(one.state.logit_processor_kwargs.get(GREEDY, False)) for one in requests_with_new_token]
        return torch.tensor(asked, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Return the scores, (tokens, vocabulary), with all but the highest struck out where that is asked."""
        best = scores.argmax(dim=-1, keepdim=True)
        alone = torch.full_like(scores, -torch.inf).scatter(-1, best, 0.0)
        return torch.where(tensor_arg[: scores.size(0)].bool()[:, None], alone, scores)


class MinNewTokens(ContinuousBatchingLogitsProcessor):  # type: ignore[misc] # transformers has no types here
    """Strikes out what would end an answer before it has so many tokens, as `generate` does."""

    supported_kwargs = {MIN_NEW_TOKENS: int}  # noqa: RUF012 # as the base class declares it
    ignored_kwargs = ()

    def __init__(self, least: int, ends: Sequence[int]) -> None:
        self._least = least
        self._ends = [end for end in ends if end >= 0]

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Any answer may end."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Return 1 for each query whose answer may not end with the next token."""
        short = []
        for one in requests_with_new_token:
            state = one.state
            own = state.logit_processor_kwargs
            least = own.get(MIN_NEW_TOKENS, self._least) if own else self._least
            # Counted by what will be in the cache after the step, not by the tokens that are known: the last may still
            # be being computed. A query that had to make room for others comes again with its tokens in its prompt.
            tokens = state.position_offset - (state._true_initial_tokens or len(state.initial_tokens))
            short.append(tokens < least)
        return torch.tensor(short, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Strike out the ends in the scores, (tokens, vocabulary), of all short answers."""
        short = tensor_arg[: scores.size(0)].bool()
        for end in self._ends:
            if end < scores.size(-1):
                # In place, for nobody else reads them: a copy of all would cost more than everything else here.
                scores[:, end].masked_fill_(short, -torch.inf)
        return scores


def insert(manager: Any, processor: ContinuousBatchingLogitsProcessor) -> None:
    """Let scores go through the processor before all others; before the manager's cache is made."""
    processors = manager.logit_processor
    processors.logits_processor.insert(0, processor)
    processors.tensors_required += 1
    processors.supported_keys.update(processor.supported_kwargs)
    processors.do_processing = True
