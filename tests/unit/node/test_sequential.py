"""The real loading code and the real `generate` on a tiny Llama."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.engines import sequential
from benchmark.node.interfaces import Prompt, Query
from benchmark.node.model.tiny import make_tiny_model
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.unit.node.heard import Heard


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(directory)
    return directory


def settings(model: Path, **more: Any) -> Settings:
    return Settings(benchmark_model=str(model), benchmark_device="cpu", benchmark_dtype="float32", **more)


SAMPLING = Generation(max_new_tokens=12, min_new_tokens=12, temperature=0.7, seed=1)


def answers(model: Path, generation: Generation, queries: list[Query]) -> Heard:
    engine = sequential.Engine(settings(model), generation, {})
    info = engine.load()
    assert info.details["dtype"] == "float32"
    assert info.details["device"] == "cpu"
    assert not info.simulated
    heard = Heard()
    for query in queries:
        engine.submit(query, heard)
    assert not heard.errors
    return heard


def query(index: int, seed: int = 1) -> Query:
    return Query(index=index, prompt=Prompt(id="p", text="Explain photosynthesis."), seed=seed)


def test_tokens_are_counted_from_ids(model: Path) -> None:
    heard = answers(model, SAMPLING, [query(0)])
    assert len(heard.tokens[0]) == 12
    assert heard.first[0] < heard.last[0]
    assert heard.inputs[0] > len(["Explain", "photosynthesis."])


def test_an_answer_depends_on_its_seed_and_not_on_the_order(model: Path) -> None:
    one = answers(model, SAMPLING, [query(0, seed=5), query(1, seed=6)])
    other = answers(model, SAMPLING, [query(1, seed=6), query(0, seed=5)])
    assert one.tokens == other.tokens
    assert one.tokens[0] != one.tokens[1]


def test_greedy_ignores_the_seed(model: Path) -> None:
    greedy = Generation(max_new_tokens=8, min_new_tokens=8, temperature=0)
    heard = answers(model, greedy, [query(0, seed=5), query(1, seed=6)])
    assert heard.tokens[0] == heard.tokens[1]


def test_a_query_can_ask_for_no_sampling(model: Path) -> None:
    asked = [replace(query(0, seed=5), greedy=True), replace(query(1, seed=6), greedy=True)]
    heard = answers(model, SAMPLING, asked)
    assert heard.tokens[0] == heard.tokens[1]


def test_the_models_own_choosing_of_tokens_does_not_count(tmp_path: Path, model: Path) -> None:
    greedy = Generation(max_new_tokens=8)
    plain = answers(model, greedy, [query(0)])
    other = tmp_path / "other"
    make_tiny_model(other)
    own = other / "generation_config.json"
    said = {**json.loads(own.read_text()), "suppress_tokens": [plain.tokens[0][0]], "no_repeat_ngram_size": 1}
    own.write_text(json.dumps(said))
    assert answers(other, greedy, [query(0)]).tokens == plain.tokens


def test_ids_of_the_datasets_own_go_to_the_model_as_they_are(model: Path) -> None:
    heard = answers(model, SAMPLING, [Query(index=0, prompt=Prompt("p", "", token_ids=(5, 6, 7)), seed=1)])
    assert heard.inputs[0] == 3


def test_a_prompt_beyond_the_models_positions_is_not_answered(model: Path) -> None:
    longest = Prompt("p", "", token_ids=(5,) * 2047)
    with pytest.raises(RunError, match="The prompt and its answer take 2055 tokens; the model has 2048 positions"):
        answers(model, Generation(max_new_tokens=8), [Query(index=0, prompt=longest, seed=1)])


def test_the_same_seed_makes_the_same_model(tmp_path: Path, model: Path) -> None:
    make_tiny_model(tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()


def test_a_model_is_not_overwritten(model: Path) -> None:
    with pytest.raises(InputError, match="exists"):
        make_tiny_model(model)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: (d / "model.safetensors").unlink(), r"holds no model\.safetensors"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 100), "is damaged"),
        (lambda d: (d / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda d: (d / "config.json").write_text("{}"), "has no model_type"),
    ],
)
def test_a_spoilt_model_is_a_setup_error(tmp_path: Path, spoil: Any, said: str) -> None:
    make_tiny_model(tmp_path / "m")
    spoil(tmp_path / "m")
    with pytest.raises(SetupError, match=said):
        sequential.Engine(settings(tmp_path / "m"), SAMPLING, {}).load()


def test_a_hub_model_that_was_not_fetched_is_a_setup_error(tmp_path: Path) -> None:
    absent = Settings(benchmark_model="org/absent", benchmark_device="cpu", hf_cache_dir=str(tmp_path))
    with pytest.raises(SetupError, match=r"org/absent at revision .* is not in"):
        sequential.Engine(absent, SAMPLING, {}).load()


def test_options_that_the_engine_does_not_have_are_refused(model: Path) -> None:
    with pytest.raises(InputError, match="batch is not an option"):
        sequential.Engine(settings(model), SAMPLING, {"batch": 4}).load()
