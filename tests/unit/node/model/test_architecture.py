"""What a model is, by one step of it without weights, held against the real model of each family."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.continuous import memory_plan as memory
from benchmark.node.engines import continuous, endpoint, sequential
from benchmark.node.interfaces import Demands, Prompt
from benchmark.node.model import load
from benchmark.node.model.architecture import look, name, read_config
from benchmark.node.model.load import load_model
from benchmark.node.model.prompting import TEMPLATE_DATE, encode
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.model.tokenizer import load_tokenizer
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests import architectures

# Some of each kind; `python -m tests.architectures` runs all.
SIZED = (
    "llama",
    "qwen2",
    "gemma2",
    "gemma3",
    "phi3",
    "gpt2",
    "opt",
    "gpt_neox",
    "mixtral",
    "olmo2",
    "cohere",
    "gpt_oss",
)
REFUSED = {
    "falcon": "it has its own attention, which cannot be replaced",
    "bloom": "it has its own attention, which cannot be replaced",
    "nemotron": "its attention does not get the paged cache",
    "doge": "its attention makes its own mask",
    "diffllama": "its layers call the attention more than once",
    "deepseek_v3": "the shape of its layers' keys and values differs from the paged cache's",
    "gemma4_text": "the shape of its layers' keys and values differs from the paged cache's",
    "llama4": "it has layers of 'chunked_attention'",
    "mamba2": "it has layers of 'linear_attention'",
    "qwen3_next": "it has layers of 'linear_attention'",
    "rwkv": "it keeps a state between tokens",
    "bart": "it has an encoder",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tiny"
    make_tiny_model(directory)
    return directory


def test_the_tiny_model_can_be_read_by_whom_the_umask_lets(tokenizer: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tokenizer.iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize("family", SIZED)
def test_sizes_are_those_of_the_real_model(family: str) -> None:
    found = look(architectures.config(family)).sizes
    assert found is not None
    model = architectures.model(family)
    tokens = 5
    with torch.inference_mode():
        answer = model(torch.arange(3, 3 + tokens)[None], use_cache=True)
    kept = [part.numel() * 4 for layer in answer.past_key_values.layers for part in (layer.keys, layer.values)]
    assert memory.cache_bytes(found, 4) == sum(kept) / tokens
    assert found.vocabulary == answer.logits.shape[-1]
    assert found.hidden == model.get_input_embeddings().weight.shape[-1]
    assert found.widest >= 96  # the MLP's, or of what is chosen of its experts


@pytest.mark.parametrize(("family", "why"), REFUSED.items())
def test_what_batching_cannot_serve_is_refused(family: str, why: str) -> None:
    config = architectures.config(family) if family != "bart" else _bart()
    found = look(config)
    assert found.sizes is None
    assert why in (found.unfit or "")


def _bart() -> Any:
    from transformers import BartConfig

    return BartConfig(d_model=32, encoder_layers=1, decoder_layers=1)


def test_what_one_query_would_change_for_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architectures.OWN, "llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}})
    assert "rotary embedding (dynamic) is recomputed" in (look(architectures.config("llama")).unfit or "")
    # Phi-3.5-MoE: of its numbers one is chosen by the longest query.
    monkeypatch.setitem(architectures.OWN, "phimoe", longrope(128, short_mscale=1.2, long_mscale=1.5))
    assert "from values of all queries of a step" in (look(architectures.config("phimoe")).unfit or "")


def test_attention_to_later_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architectures.OWN, "gemma3_text", {"use_bidirectional_attention": True})
    assert look(architectures.config("gemma3_text")).unfit == "its attention also looks at later tokens"


def test_what_its_attention_needs_is_known() -> None:
    assert look(architectures.config("gemma2")).needs == {"softcap"}
    assert look(architectures.config("gpt_oss")).needs == {"sinks"}
    assert look(architectures.config("llama")).needs == set()


def test_looking_leaves_the_configuration_as_it_was() -> None:
    config = architectures.config("gemma3")
    before = config.to_dict()
    look(config)
    assert config.to_dict() == before


def test_a_large_model_is_looked_at_without_memory() -> None:
    from transformers import LlamaConfig

    llama = LlamaConfig(
        **{"hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256},
        **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    )
    found = look(llama).sizes
    assert found is not None
    assert memory.cache_bytes(found, 2) == 128 * 1024
    assert (found.hidden, found.widest, found.layers) == (4096, 14336, 32)


# What people serve. Gemma 2: a soft cap, which transformers' paged attention leaves out; gpt-oss: sinks; neither takes
# sdpa. Mistral, Gemma, gpt-oss and OLMo 3 look back over a sliding window, shorter than the prompts here; Gemma 3 that
# sees images too has its sizes in text_config; Phi-4 is Phi-3's architecture.
@pytest.mark.parametrize(
    "family",
    [
        *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gemma3", "phi3", "gpt_oss"),
        *("olmo", "olmo2", "olmo3"),
    ],
)
def test_every_engine_answers_as_plain_generate(family: str, tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save(family, tmp_path / family, tokenizer)
    expected = architectures.generated(settings)
    assert len(set(expected.values())) == len(expected), "answers depend on the prompt"
    assert architectures.answers(settings, "sequential") == expected
    assert architectures.answers(settings, "continuous") == expected


def longrope(original: int, **more: float) -> dict[str, Any]:
    """Return what Phi-3 and Phi-4 with long contexts have in their configuration."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [float(2 + number) for number in range(8)]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": original, **factors}
    rope |= more
    return {"rope_parameters": rope, "original_max_position_embeddings": original}


def test_within_its_first_positions_longrope_is_batched(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(architectures.OWN, "phi3", longrope(128))
    settings = architectures.save("phi3", tmp_path / "phi3", tokenizer)
    assert architectures.answers(settings, "continuous") == architectures.generated(settings)


def test_what_longrope_would_change_for_others_is_not_batched(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond them all queries of a step would have the frequencies of the longest."""
    monkeypatch.setitem(architectures.OWN, "phi3", longrope(32))
    settings = architectures.save("phi3", tmp_path / "phi3", tokenizer)
    expected = architectures.generated(settings)
    assert architectures.answers(settings, "sequential") == expected
    engine = continuous.Engine(settings, architectures.GENERATION, {"page_size": 16, "num_blocks": 64})
    engine.demands = Demands(ids=True, longest=60)
    with pytest.raises(InputError, match=r"take 72 tokens, but the limit for .* \(longrope\) in a batch is 32: "):
        engine.load()
    engine.demands = Demands()
    try:
        engine.load()
        short = [one for one in architectures.queries() if len(one.prompt.token_ids or ()) + 12 <= 32]
        assert len(short) > 1
        assert architectures.ask(engine, short) == {one.index: expected[one.index] for one in short}
        with pytest.raises(RunError, match=r"take 72 tokens; .* is 32"):
            engine.submit(architectures.queries()[-1], architectures.Answers())
    finally:
        engine.close()


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next", "deepseek_v3", "llama4", "falcon"])
def test_the_others_are_refused_before_loading(
    family: str, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = architectures.save(family, tmp_path / family, tokenizer)
    assert all(len(tokens) == 12 for tokens in architectures.answers(settings, "sequential").values())

    def load(settings: Settings) -> Any:
        raise AssertionError("The weights were loaded.")

    monkeypatch.setattr(continuous, "load_model", load)
    engine = continuous.Engine(settings, Generation(max_new_tokens=4), {})
    called = name(read_config(tmp_path / family))
    assert called[0].isupper()
    with pytest.raises(SetupError) as caught:
        engine.load()
    assert (
        f"The engine continuous does not support this architecture ({called}): use vllm or endpoint, or sequential."
        in str(caught.value)
    )
    assert "memory" not in str(caught.value)


@pytest.mark.parametrize("family", ["gemma3", "mistral3", "opt", "gpt2"])
def test_a_model_of_any_family_is_loaded_whole(family: str, tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save(family, tmp_path / family, tokenizer)
    loaded = load_model(settings)
    assert loaded.details["architecture"] == name(read_config(tmp_path / family))
    expected = architectures.model(family).state_dict()
    for key, weights in loaded.model.state_dict().items():
        torch.testing.assert_close(weights, expected[key])


def test_a_model_with_an_encoder_is_refused_by_both_engines(tmp_path: Path, tokenizer: Path) -> None:
    from transformers import BartForConditionalGeneration

    settings = architectures.save("gpt2", tmp_path / "bart", tokenizer)
    BartForConditionalGeneration(_bart()).save_pretrained(tmp_path / "bart")
    with pytest.raises(SetupError, match=r"\(BartForConditionalGeneration\) has an encoder"):
        sequential.Engine(settings, Generation(), {}).load()
    with pytest.raises(
        SetupError, match=r"engine continuous does not support this architecture \(BartForConditionalGeneration\)"
    ):
        continuous.Engine(settings, Generation(), {}).load()


def test_a_model_without_a_chat_template_gets_its_sentence(tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    (tmp_path / "gpt2" / "chat_template.jinja").unlink()
    with pytest.raises(SetupError, match="has no chat template: an instruct model is needed"):
        sequential.Engine(settings, Generation(), {}).load()


@pytest.mark.parametrize(
    "template",
    ["{{ messages | nope }}", "{{ raise_exception('no user here') }}", "{% for", "{{ messages[3].content }}"],
)
def test_a_template_that_makes_no_prompt_is_found_before_weights(
    template: str, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    (tmp_path / "gpt2" / "chat_template.jinja").write_text(template)
    engine = sequential.Engine(settings, Generation(), {})
    monkeypatch.setattr(load, "_read", None)
    with pytest.raises(
        SetupError, match=r"The chat template of the model in .*gpt2 cannot make a prompt from a text: "
    ):
        engine.load()
    # Prompts of token ids need none.
    monkeypatch.undo()
    (tmp_path / "gpt2" / "chat_template.jinja").unlink()
    engine.demands = Demands(ids=True)
    assert engine.load().replicas == 1


@pytest.mark.parametrize(
    "template", ["{{ '' }}", "{% for part in messages[0].content %}{{ part.text }}{% endfor %}", "hi"]
)
def test_a_template_that_leaves_the_text_out_is_refused(template: str, tmp_path: Path, tokenizer: Path) -> None:
    """Some take a text only as a part among images."""
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    (tmp_path / "gpt2" / "chat_template.jinja").write_text(template)
    with pytest.raises(SetupError, match=r"The chat template of the model in .*gpt2 ignores the text"):
        sequential.Engine(settings, Generation(), {}).load()


def test_generation_settings_that_break_are_a_setup_error(tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    (tmp_path / "gpt2" / "generation_config.json").write_text('{"watermarking_config": {"of": "tomorrow"}}')
    with pytest.raises(SetupError, match=r"gpt2 cannot be loaded: TypeError: WatermarkingConfig"):
        sequential.Engine(settings, Generation(), {}).load()


@pytest.mark.parametrize("engine", [sequential, continuous, endpoint])
def test_a_tokenizer_that_cannot_be_read_is_a_setup_error(engine: Any, tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    asked = {"benchmark_endpoint_urls": ["http://127.0.0.1:9"], "benchmark_endpoint_api": "completions"}
    path = tmp_path / "gpt2" / "tokenizer.json"
    content = json.loads(path.read_text())
    for broken in ({}, {**content, "model": {"type": "of tomorrow"}}):
        path.write_text(json.dumps(broken))
        with pytest.raises(SetupError, match=r"The tokenizer in .*gpt2 cannot be loaded: .* Provision it again"):
            engine.Engine(settings.model_copy(update=asked), Generation(), {}).load()
    path.write_text(json.dumps(content))
    (tmp_path / "gpt2" / "chat_template.jinja").write_text("{{ messages | nope }}")
    with pytest.raises(
        SetupError, match=r"The chat template of the model in .*gpt2 cannot make a prompt from a text: "
    ):
        engine.Engine(settings.model_copy(update=asked), Generation(), {}).load()


def test_a_configuration_that_is_refused_is_a_setup_error(tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    path = tmp_path / "gpt2" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": "2"}))
    with pytest.raises(SetupError, match=r"config.json does not describe a model that transformers .* knows"):
        sequential.Engine(settings, Generation(), {}).load()


def test_the_date_of_a_prompt_is_the_same_tomorrow(tokenizer: Path) -> None:
    """gpt-oss asks for today's date by another word than Llama's template does."""
    known = load_tokenizer(tokenizer)
    ask = "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{{ day }}{% endif %}"
    known.chat_template = (
        "\n{{ date_string }} " + ask + " {{ strftime_now('%Y-%m-%d %H:%M') }} {{ messages[0].content }}"
    )
    prompt = known.decode(encode(known, Prompt("a question", "now")))
    assert prompt == f"\n{TEMPLATE_DATE} {TEMPLATE_DATE} 2024-07-26 00:00 now"


def test_weights_that_need_a_package_are_a_setup_error(tmp_path: Path, tokenizer: Path) -> None:
    settings = architectures.save("gpt2", tmp_path / "gpt2", tokenizer)
    path = tmp_path / "gpt2" / "config.json"
    quantized = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantized))
    with pytest.raises(
        SetupError, match=r"needs a package that is not installed: Loading a GPTQ .* Use vllm or endpoint"
    ):
        sequential.Engine(settings, Generation(), {}).load()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "does not describe a model that transformers .* knows"),
        (
            {"model_type": "of tomorrow"},
            "of tomorrow.* Use vllm or endpoint, which do not need this version to know it",
        ),
        ({"model_type": "llama", "num_attention_heads": "many"}, "does not describe a model"),
    ],
)
def test_an_unknown_configuration_is_a_setup_error(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SetupError, match=said):
        read_config(tmp_path)
