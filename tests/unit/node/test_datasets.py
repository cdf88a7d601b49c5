from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import InputError, SetupError
from benchmark.node.accuracy import has_references
from benchmark.node.datasets import cnn_dailymail
from benchmark.node.drawing import ordinary_tokens
from benchmark.node.interfaces import Dataset
from benchmark.node.registry import load_dataset
from benchmark.profiles import load_profile, profile_names
from benchmark.settings import Settings

ENTRIES: list[dict[str, Any]] = [
    {
        "instruction": {"llama": "..."},
        "input": 'A "café" in London, 안녕.',
        "tok_input": [1, 300, 7],
        "output": "A café.",
    },
    {"input": "Rain.\nMore rain.", "tok_input": [128000, 0], "output": ""},
    {"input": "", "tok_input": [5], "output": "Nothing."},
]


def load(name: str, options: dict[str, Any] | None = None, **variables: Any) -> Dataset:
    return load_dataset(name, Settings(**variables), options or {})


def cnn(path: Path, **options: Any) -> Dataset:
    return load("cnn_dailymail", options, benchmark_dataset_path=str(path))


def test_there_are_twenty_curated_prompts_of_varied_tasks() -> None:
    dataset = load("curated")
    assert len(dataset.prompts) == len({prompt.id for prompt in dataset.prompts}) == 20
    assert len({prompt.id.split("-")[0] for prompt in dataset.prompts}) >= 6
    assert all(prompt.text.strip() == prompt.text and prompt.text for prompt in dataset.prompts)
    assert not has_references(dataset)


def test_quick_measures_each_curated_prompt_once() -> None:
    assert load_profile("quick").samples == len(load("curated").prompts)
    assert "quick" in profile_names()


@pytest.mark.parametrize("indent", [None, 4])
def test_a_cnn_eval_of_ones_own_is_read_as_it_is(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "cnn_eval.json"
    path.write_text(json.dumps(ENTRIES, indent=indent, ensure_ascii=False), encoding="utf-8")
    dataset = cnn(path)
    assert [prompt.id for prompt in dataset.prompts] == ["cnn-00000", "cnn-00001", "cnn-00002"]
    for prompt, entry in zip(dataset.prompts, ENTRIES, strict=True):
        assert (prompt.text, prompt.reference) == (entry["input"], entry["output"])
        assert list(prompt.token_ids or ()) == entry["tok_input"]
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert has_references(dataset)
    assert cnn(path, prompts=2).prompts == dataset.prompts[:2]
    assert cnn(path, prompts=9).prompts == dataset.prompts


TEXTS = st.text(max_size=8)
ENTRY = st.fixed_dictionaries(
    {"input": TEXTS, "tok_input": st.lists(st.integers(0, 130_000), min_size=1, max_size=6), "output": TEXTS}
)


@settings(max_examples=60)
@given(st.lists(ENTRY, min_size=1, max_size=5), st.sampled_from([None, 1, 4]), st.integers(1, 30), st.booleans())
def test_reading_in_pieces_is_reading(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]], indent: int | None, piece: int, plain: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.json"
    content = json.dumps(entries, indent=indent, ensure_ascii=plain).encode()
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnn_dailymail, "PIECE_BYTES", piece)
        prompts = cnn(path).prompts
    assert [
        {"input": prompt.text, "tok_input": list(prompt.token_ids or ()), "output": prompt.reference}
        for prompt in prompts
    ] == json.loads(content)


def changed(**fields: Any) -> str:
    return json.dumps([ENTRIES[0], {**ENTRIES[1], **fields}])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("[]", "no entries"),
        ("{}", "not a JSON list"),
        ("hello", "not a JSON list"),
        (json.dumps(ENTRIES)[:-1], "after 3 entries"),
        (json.dumps(ENTRIES)[:-20], "entry 2"),
        (json.dumps(ENTRIES)[:10], "entry 0"),
        (json.dumps(ENTRIES)[:-1] + ",]", "entry 3"),
        (json.dumps(ENTRIES)[:-1] + " 7]", "after 3 entries"),
        ("[" * 10_000, "entry 0"),
        ("[1, 2]", "entry 0"),
        ('[{"input": "x", "output": "y"}]', "no 'tok_input'"),
        (changed(output=None), "'output' is not a text"),
        (changed(input=7), "entry 1 (from 0): 'input' is not a text"),
        (changed(tok_input="1, 2"), "list of token ids"),
        (changed(tok_input=[]), "list of token ids"),
        (changed(tok_input=[1, "2"]), "list of token ids"),
        (changed(tok_input=[1, True]), "list of token ids"),
        (changed(tok_input=[1, 2.0]), "list of token ids"),
        (changed(tok_input=[1, -1]), "list of token ids"),
        (b"[\xff\xfe]", "not UTF-8"),
        (b'[{"input": "caf\xc3', "not UTF-8"),
    ],
)
def test_a_malformed_cnn_eval_is_refused_by_name_and_fault(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "cnn_eval.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SetupError) as raised:
        cnn(path)
    assert str(path) in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_never_ends_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnn_dailymail, "PIECE_BYTES", 10)
    monkeypatch.setattr(cnn_dailymail, "MAX_ENTRY_CHARACTERS", 100)
    path = tmp_path / "cnn_eval.json"
    path.write_text('[{"input": "' + "x" * 1000 + '", "tok_input": [1], "output": ""}]')
    with pytest.raises(SetupError, match="entry 0"):
        cnn(path)


def test_the_edge_benchmark_has_the_references_choice(tmp_path: Path) -> None:
    path = tmp_path / "cnn_eval.json"
    path.write_text(json.dumps([{"input": str(n), "tok_input": [n], "output": "x"} for n in range(13_368)]))
    prompts = cnn(path, edge=True).prompts
    # What the datasets package's shuffle(seed=42).take(5000) leaves of 13,368 rows.
    assert [int(prompt.text) for prompt in prompts[:8]] == [1517, 10554, 910, 12519, 158, 8562, 9769, 8270]
    assert [int(prompt.text) for prompt in prompts[-3:]] == [8507, 7547, 6074]
    assert len({prompt.id for prompt in prompts}) == 5000
    assert all(prompt.id == f"cnn-{int(prompt.text):05}" for prompt in prompts)
    assert cnn(path, edge=True, prompts=3).prompts == prompts[:3]
    assert [prompt.text for prompt in cnn(path, edge=False, prompts=3).prompts] == ["0", "1", "2"]


def test_a_file_with_the_edge_choice_is_not_chosen_from_again(tmp_path: Path) -> None:
    path = tmp_path / "cnn_eval_5000.json"
    path.write_text(json.dumps([{"input": str(n), "tok_input": [n], "output": "x"} for n in range(5000)]))
    assert [int(prompt.text) for prompt in cnn(path, edge=True).prompts] == list(range(5000))


@pytest.mark.parametrize("value", [1, "yes", None])
def test_edge_is_a_yes_or_no(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match=r"cnn_dailymail: edge is .*: it must be true or false"):
        cnn(tmp_path / "cnn_eval.json", edge=value)


def test_a_file_that_is_not_there_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"benchmark_dataset_path is .*absent"):
        cnn(tmp_path / "absent.json")
    with pytest.raises(SetupError, match=r"not prepared .*provision\.yml"):
        load("cnn_dailymail", hf_cache_dir=str(tmp_path))
    with pytest.raises(SetupError, match="cannot be read"):
        cnn(tmp_path)


@pytest.mark.parametrize("options", [{"prompt": 3}, {"prompts": 0}, {"prompts": "all"}, {"prompts": True}])
def test_options_that_cnn_dailymail_does_not_have(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="prompts"):
        load("cnn_dailymail", options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the vocabulary is read from: twenty embeddings, two of them padding, three special tokens."""
    directory = tmp_path_factory.mktemp("model")
    (directory / "config.json").write_text('{"vocab_size": 20}')
    vocabulary = {chr(ord("a") + number): number for number in range(17)} | {"<eos>": 3}
    added = [{"id": 3, "content": "<eos>"}, {"id": 16, "content": "<x>"}, {"id": 17, "content": "<y>"}]
    (directory / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"vocab": vocabulary}}))
    return directory


def synthetic(model: Path, **options: Any) -> Dataset:
    return load("synthetic", options, benchmark_model=str(model))


# Computed apart, by the recipe in the module's docstring.
EXPECTED = [(9, 6), (10, 0, 0), (4, 4, 15, 8)]


def test_synthetic_prompts_are_the_same_everywhere(model: Path) -> None:
    dataset = synthetic(model, input_tokens=[2, 4], prompts=3, seed=3)
    assert [prompt.token_ids for prompt in dataset.prompts] == EXPECTED
    assert dataset.sha256 == hashlib.sha256(json.dumps(EXPECTED, separators=(",", ":")).encode()).hexdigest()
    assert [prompt.id for prompt in dataset.prompts] == ["synthetic-00000", "synthetic-00001", "synthetic-00002"]
    assert not has_references(dataset)
    assert synthetic(model, input_tokens=[2, 4], prompts=3, seed=3) == dataset
    assert synthetic(model, input_tokens=[2, 4], prompts=3, seed=8).sha256 != dataset.sha256


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 20), st.integers(0, 2**64))
def test_synthetic_prompts_have_the_lengths_asked_for(
    model: Path, least: int, more: int, count: int, seed: int
) -> None:
    dataset = synthetic(model, input_tokens=[least, least + more], prompts=count, seed=seed)
    assert len(dataset.prompts) == count
    for prompt in dataset.prompts:
        assert prompt.token_ids is not None
        assert least <= len(prompt.token_ids) <= least + more
        assert set(prompt.token_ids) <= set(range(16)) - {3}


def test_every_length_and_every_ordinary_token_is_drawn(model: Path) -> None:
    dataset = synthetic(model, input_tokens=[1, 3], prompts=300)
    drawn = [prompt.token_ids or () for prompt in dataset.prompts]
    assert {len(ids) for ids in drawn} == {1, 2, 3}
    assert {token_id for ids in drawn for token_id in ids} == set(ordinary_tokens(model))
    assert {len(prompt.token_ids or ()) for prompt in synthetic(model, input_tokens=5, prompts=4).prompts} == {5}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompts": 3},
        {"input_tokens": 0, "prompts": 3},
        {"input_tokens": [3, 2], "prompts": 3},
        {"input_tokens": [1, 2, 3], "prompts": 3},
        {"input_tokens": "10", "prompts": 3},
        {"input_tokens": 2.5, "prompts": 3},
        {"input_tokens": 2, "prompts": 0},
        {"input_tokens": 2, "prompts": True},
        {"input_tokens": 2, "prompts": 3, "seed": -1},
        {"input_tokens": 2, "prompts": 3, "answer_tokens": 9},
    ],
)
def test_options_that_synthetic_does_not_have(model: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="The dataset synthetic"):
        synthetic(model, **options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{}", "vocab_size"),
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("tokenizer.json", "{}", "no vocabulary"),
        ("tokenizer.json", None, "cannot be read"),
    ],
)
def test_a_model_that_does_not_tell_its_vocabulary(
    model: Path, tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(SetupError, match=words):
        synthetic(tmp_path, input_tokens=2, prompts=1)


def test_a_unigram_vocabulary_and_one_within_a_larger_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 3}}')
    vocabulary = {"model": {"vocab": [["<unk>", 0], ["a", -1], ["b", -2], ["c", -3]]}, "added_tokens": [{"id": 0}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    assert ordinary_tokens(tmp_path) == [1, 2]
