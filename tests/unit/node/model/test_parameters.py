"""How many parameters each token is multiplied with: of real architectures, made without memory."""

from typing import Any

import pytest

from benchmark.node.model.load import has_experts, parameters_per_token

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
SMALL = {**SIZES, "hidden_size": 32, "intermediate_size": 48}


def made(family: str, **config: Any) -> Any:
    import torch
    import transformers

    known = transformers.AutoConfig.for_model(family, **config)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(known)


def total(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_table_that_a_token_picks_a_row_of_is_left_out() -> None:
    model = made("llama", **SMALL, tie_word_embeddings=False)
    assert parameters_per_token(model) == total(model) - 100 * 32


def test_a_table_that_is_the_outputs_too_is_read() -> None:
    model = made("llama", **SMALL, tie_word_embeddings=True)
    assert parameters_per_token(model) == total(model)


def test_positions_are_a_table_too() -> None:
    model = made("gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=64)
    assert parameters_per_token(model) == total(model) - 64 * 32


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_which_experts_are_read_depends_on_the_token(family: str) -> None:
    assert parameters_per_token(made(family, **SMALL)) is None


def test_experts_are_seen_inside_a_part_of_the_configuration() -> None:
    assert has_experts({"ffn_config": {"moe_num_experts": 4}})
    assert not has_experts({"num_experts": None, "hidden_size": 32})
