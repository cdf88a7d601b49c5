"""Rules for choosing the next token, per query, in transformers' continuous batching.

Its steps sample either all tokens or none, all from one random stream. So here they sample none: each step takes the
token with the highest score, after `Drawn` has added noise. It also drops the processor that `generate` uses to keep
answers from ending early. So each processor here has one number per query among a step's inputs. It is computed before
the step, on the host, and stored in a tensor at a fixed address; the step itself never reads values in Python, as CUDA
graphs require.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

GREEDY, MIN_NEW_TOKENS, SEED = "greedy", "min_new_tokens", "seed"
"""The arguments that `add_request` accepts, once the processor is inserted."""
# Random bits that a float32 holds with a half added, so that the result is never 0 or 1.
CHANCE_BITS = 23


class Drawn(ContinuousBatchingLogitsProcessor):  # type: ignore[misc] # transformers has no types here
    """Add noise to the scores, by each query's own seed, so that the highest is a random draw.

    The highest of scores with Gumbel noise is drawn with the probabilities of their softmax, independently of all other
    queries. A `greedy` query gets no noise: its most likely token stays the highest.
    """

    supported_kwargs = {SEED: int, GREEDY: bool}  # noqa: RUF012 # as the base class declares it
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._tokens: torch.Tensor | None = None

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Fill with zeros: any random number will do."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Return for each query the seed of its next token, from its own seed and the token's place; odd: greedy."""
        own = [one.state.logit_processor_kwargs for one in requests_with_new_token]
        asked = [words.get(SEED, 0) for words in own]
        places = [_answered(one.state) for one in requests_with_new_token]
        word = _mixed(torch.tensor([_signed(seed) for seed in asked], dtype=torch.int32))
        word ^= torch.tensor([_signed(seed >> 32) for seed in asked], dtype=torch.int32)
        word = _mixed(word ^ torch.tensor([_signed(place * 0x9E3779B1) for place in places], dtype=torch.int32))
        return (word & ~1) | torch.tensor([int(words.get(GREEDY, False)) for words in own], dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Return the scores, (tokens, vocabulary), with noise except for greedy queries."""
        asked = tensor_arg[: scores.size(0), None]
        words = _mixed(self._mixed_tokens(scores) ^ asked)
        chance = (_shifted(words, 32 - CHANCE_BITS).float() + 0.5) / 2**CHANCE_BITS
        return torch.where((asked & 1).bool(), scores, scores - torch.log(-torch.log(chance)))

    def _mixed_tokens(self, scores: torch.Tensor) -> torch.Tensor:
        """Return a pseudo-random number for each token, the same in every step."""
        if self._tokens is None or self._tokens.shape != scores.shape[-1:]:
            tokens = _mixed(torch.arange(scores.size(-1), dtype=torch.int32, device=scores.device))
            if scores.is_cuda and torch.cuda.is_current_stream_capturing():
                return tokens  # it exists only in the graph's memory
            self._tokens = tokens
        return self._tokens


class MinNewTokens(ContinuousBatchingLogitsProcessor):  # type: ignore[misc] # transformers has no types here
    """Exclude the tokens that would end an answer before its minimum length, as `generate` does."""

    supported_kwargs = {MIN_NEW_TOKENS: int}  # noqa: RUF012 # as the base class declares it
    ignored_kwargs = ()

    def __init__(self, least: int, ends: Sequence[int]) -> None:
        self._least = least
        self._ends = [end for end in ends if end >= 0]

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Fill with zeros: any answer may end."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Return 1 for each query whose answer may not end with the next token."""
        short = []
        for one in requests_with_new_token:
            state = one.state
            own = state.logit_processor_kwargs
            least = own.get(MIN_NEW_TOKENS, self._least) if own else self._least
            short.append(_answered(state) < least)
        return torch.tensor(short, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Exclude the end tokens from the scores, (tokens, vocabulary), of all short answers."""
        short = tensor_arg[: scores.size(0)].bool()
        for end in self._ends:
            if end < scores.size(-1):
                # In place, as nothing else reads them: a copy would cost more than everything else here.
                scores[:, end].masked_fill_(short, -torch.inf)
        return scores


def insert(manager: Any, processor: ContinuousBatchingLogitsProcessor, last: bool = False) -> None:
    """Insert the processor before all others, or after them; call it before the manager's cache is made."""
    processors = manager.logit_processor
    processors.logits_processor.insert(len(processors.logits_processor) if last else 0, processor)
    processors.tensors_required += 1
    processors.supported_keys.update(processor.supported_kwargs)
    processors.do_processing = True


def _answered(state: Any) -> int:
    """Return the number of tokens that a query has before its next one.

    Counted by what the cache will hold after the step, not by the known tokens: the last one may still be being
    computed. A preempted query returns with its tokens in its prompt.
    """
    return int(state.position_offset - (state._true_initial_tokens or len(state.initial_tokens)))


def _mixed(words: torch.Tensor) -> torch.Tensor:
    """Return int32 words with each bit spread over all 32, as MurmurHash3 ends; products keep their low 32 bits."""
    words = (words ^ _shifted(words, 16)) * _signed(0x85EBCA6B)
    words = (words ^ _shifted(words, 13)) * _signed(0xC2B2AE35)
    return words ^ _shifted(words, 16)


def _shifted(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Return int32 words shifted right, filled with zeros."""
    return (words >> bits) & (2 ** (32 - bits) - 1)


def _signed(number: int) -> int:
    """Return the low 32 bits of a number as a signed int32."""
    return ((number & 0xFFFFFFFF) ^ 2**31) - 2**31
