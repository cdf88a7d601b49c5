"""Workloads that people serve: lengths by distribution, shared prefixes, conversations and traces."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.dataset_options import DistributionOptions
from benchmark.errors import InputError, SetupError
from benchmark.node.datasets import trace
from benchmark.node.drawing import chance, number, whole
from benchmark.node.interfaces import Dataset
from benchmark.node.loading import demands_of
from benchmark.node.registry import load_dataset
from benchmark.settings import Settings
from tests.unit.building import asked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a vocabulary is read from: a thousand ordinary tokens."""
    directory = tmp_path_factory.mktemp("model")
    (directory / "config.json").write_text('{"vocab_size": 1000}')
    vocabulary = {f"t{number}": number for number in range(1000)}
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return directory


def load(name: str, model: Path, path: Path | str = "", **options: Any) -> Dataset:
    return load_dataset(name, Settings(benchmark_model=str(model), benchmark_dataset_path=str(path)), options)


def lengths(dataset: Dataset) -> list[int]:
    return [len(prompt.token_ids or ()) for prompt in dataset.prompts]


NORMAL = {"distribution": "normal", "mean": 100, "stddev": 20, "least": 10, "most": 190}
LOGNORMAL = {"distribution": "lognormal", "mean": 100, "stddev": 50, "least": 1, "most": 2000}


@pytest.mark.parametrize(("spread", "median"), [(NORMAL, 100), (LOGNORMAL, 100 / (1 + 0.25) ** 0.5)])
def test_lengths_follow_their_distribution(model: Path, spread: dict[str, Any], median: float) -> None:
    drawn = lengths(load("synthetic", model, input_tokens=spread, prompts=2000))
    assert statistics.fmean(drawn) == pytest.approx(spread["mean"], rel=0.05)
    assert statistics.stdev(drawn) == pytest.approx(spread["stddev"], rel=0.1)
    assert statistics.median(drawn) == pytest.approx(median, rel=0.05)
    assert spread["least"] <= min(drawn) <= max(drawn) <= spread["most"]


@given(
    st.sampled_from(["normal", "lognormal"]),
    st.floats(1, 1e4),
    st.one_of(st.floats(0.001, 1e5), st.just(1e-300)),
    st.floats(0.001, 1),
    st.floats(1, 10),
    st.integers(0, 2**40),
)
def test_nothing_beyond_both_ends_is_drawn(
    name: Any, mean: float, stddev: float, down: float, up: float, seed: int
) -> None:
    spread = DistributionOptions(distribution=name, mean=mean, stddev=stddev, least=mean * down, most=mean * up)
    draw = chance(seed)
    assert all(spread.least <= number(spread, draw) <= spread.most for _ in range(20))
    span = DistributionOptions(distribution=name, mean=mean, stddev=stddev, least=int(mean), most=int(mean) + 3)
    assert all(span.least <= whole(span, draw) <= span.most for _ in range(20))


def test_the_same_seed_gives_the_same_lengths_for_ever() -> None:
    """Computed once: another Python, or another machine, must not give others."""
    draw = chance(7)
    assert [whole(DistributionOptions.model_validate(NORMAL), draw) for _ in range(6)] == DRAWN_NORMAL
    draw = chance(7)
    assert [whole(DistributionOptions.model_validate(LOGNORMAL), draw) for _ in range(6)] == DRAWN_LOGNORMAL


DRAWN_NORMAL = [91, 79, 108, 71, 102, 93]
DRAWN_LOGNORMAL = [72, 55, 107, 45, 93, 76]


def test_answers_have_lengths_of_their_own(model: Path) -> None:
    plain = load("synthetic", model, input_tokens=[2, 9], prompts=50)
    drawn = load("synthetic", model, input_tokens=[2, 9], prompts=50, output_tokens=[3, 5])
    assert [prompt.token_ids for prompt in drawn.prompts] == [prompt.token_ids for prompt in plain.prompts]
    assert {prompt.output_tokens for prompt in drawn.prompts} == {3, 4, 5}
    assert {prompt.output_tokens for prompt in plain.prompts} == {None}
    other = load("synthetic", model, input_tokens=[2, 9], prompts=50, output_tokens=[3, 6])
    assert len({plain.sha256, drawn.sha256, other.sha256}) == 3


def test_a_share_of_prompts_begins_alike(model: Path) -> None:
    options: dict[str, Any] = {"input_tokens": 5, "prompts": 400, "shared_prefix_tokens": 8, "shared_prefixes": 3}
    dataset = load("synthetic", model, **options, shared_prefix_share=0.5)
    begun = [prompt.token_ids[:8] for prompt in dataset.prompts if prompt.token_ids and len(prompt.token_ids) == 13]
    assert set(lengths(dataset)) == {5, 13}
    assert 150 < len(begun) < 250
    assert len(set(begun)) == 3
    whole_share = load("synthetic", model, **options)
    assert set(lengths(whole_share)) == {13}
    # What is asked after the same beginning is everyone's own.
    assert len({prompt.token_ids for prompt in whole_share.prompts}) == 400


def test_a_conversation_is_a_chain_of_turns(model: Path) -> None:
    options: dict[str, Any] = {
        "conversations": 20,
        "turns": [1, 3],
        "input_tokens": [2, 4],
        "output_tokens": 6,
        "think_s": [0.1, 0.2],
    }
    dataset = load("conversations", model, **options, shared_prefix_tokens=10)
    firsts = [at for at, prompt in enumerate(dataset.prompts) if prompt.follows is None]
    assert len(firsts) == 20
    for at, prompt in enumerate(dataset.prompts):
        first = at in firsts
        assert prompt.follows == (None if first else at - 1)
        assert (12 if first else 2) <= len(prompt.token_ids or ()) <= (14 if first else 4)
        assert prompt.think_s == 0 if first else 0.1 <= prompt.think_s <= 0.2
        assert prompt.output_tokens == 6
    assert load("conversations", model, **options, shared_prefix_tokens=10) == dataset
    assert load("conversations", model, **options, shared_prefix_tokens=10, seed=1).sha256 != dataset.sha256
    # An engine has to have room for all that was said before.
    profile = asked(3, {"generation": {"max_new_tokens": 6}}).profile
    longest = max(
        sum(len(p.token_ids or ()) for p in dataset.prompts[first : first + turns]) + 6 * (turns - 1)
        for first, following in zip(firsts, [*firsts[1:], len(dataset.prompts)], strict=True)
        for turns in [following - first]
    )
    assert demands_of(profile, dataset, token_ids=True).longest == longest


def test_longer_answers_than_the_profile_gives_are_refused(model: Path) -> None:
    dataset = load("synthetic", model, input_tokens=2, prompts=3, output_tokens=9)
    with pytest.raises(InputError, match=r"answers of up to 9 tokens, but .*max_new_tokens is 8"):
        demands_of(asked(3, {"generation": {"max_new_tokens": 8}}).profile, dataset, token_ids=False)
    assert demands_of(asked(3, {"generation": {"max_new_tokens": 9}}).profile, dataset, token_ids=False).lengths


MOONCAKE = [
    {"timestamp": 0, "input_length": 13, "output_length": 500, "hash_ids": [0, 1]},
    {"timestamp": 1500, "input_length": 8, "output_length": 0, "hash_ids": [0]},
    {"timestamp": 3000, "input_length": 20, "output_length": 3, "hash_ids": [0, 2, 3]},
    {"timestamp": 27482.5, "input_length": 30, "output_length": 7, "hash_ids": [9]},
]
FALLING = '{"timestamp": 4, "input_length": 1, "output_length": 1}'
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:04.1,110,27
"""


def written(directory: Path, content: str | bytes) -> Path:
    path = directory / "trace"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_trace_of_mooncakes_keeps_its_blocks(model: Path, tmp_path: Path) -> None:
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in MOONCAKE))
    dataset = load("trace", model, path, block_tokens=8)
    assert [prompt.due_s for prompt in dataset.prompts] == [0, 1.5, 3, 27.4825]
    assert lengths(dataset) == [13, 8, 20, 30]
    assert [prompt.output_tokens for prompt in dataset.prompts] == [500, 1, 3, 7]
    first, alone, second, last = (prompt.token_ids or () for prompt in dataset.prompts)
    assert first[:8] == second[:8] == alone
    assert first[8:] != second[8:13]
    assert last[:8] != first[:8]
    assert load("trace", model, path, block_tokens=8) == dataset
    assert load("trace", model, path, block_tokens=8, seed=1).sha256 != dataset.sha256
    cut = load("trace", model, path, block_tokens=8, queries=3, max_input_tokens=10, max_output_tokens=64)
    assert (lengths(cut), [prompt.output_tokens for prompt in cut.prompts]) == ([10, 8, 10], [64, 1, 3])


LATER_AZURE = AZURE.replace("\n2023", "\n2024").replace("00,", "00+00:00,")


@pytest.mark.parametrize("text", [AZURE, LATER_AZURE, "\ufeff" + AZURE])
def test_a_trace_of_azures_is_read(model: Path, tmp_path: Path, text: str) -> None:
    dataset = load("trace", model, written(tmp_path, text))
    assert [prompt.due_s for prompt in dataset.prompts] == pytest.approx([0, 0.052, 0.12004])
    assert lengths(dataset) == [4808, 3180, 110]
    assert [prompt.output_tokens for prompt in dataset.prompts] == [10, 8, 27]
    # Nothing is known of what prompts share.
    assert len({prompt.token_ids[:4] for prompt in dataset.prompts if prompt.token_ids}) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is empty"),
        (" \n\n", "it is empty"),
        (AZURE + "2023-11-16 18:17:04,1,1\n", "line 5: it is earlier than the query above it: sort the file by time"),
        (
            '{"timestamp": 5, "input_length": 1, "output_length": 1}\n' * 2 + FALLING,
            "line 3: it is earlier than the query",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,-5,1\n", "line 2: a prompt must have from 1"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": -1}',
            "line 1: a prompt must have from 1 .* and an answer no",
        ),
        (AZURE + '2023-11-16 18:17:05,"' + "9" * 200_000 + '",1\n', "not CSV: field larger"),
        ("\0" * 2**21, "line 1: longer than 1,048,576 characters"),
        ("a,b\n1,2\n", "no column TIMESTAMP and no ContextTokens and no GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no queries"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2: not a date"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1\n", "line 2: not a date"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,0,1\n", "line 2: a prompt must have from 1"),
        ('{"timestamp": 0, "input_length": 1}\n', "line 1: it has no output_length"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"time', "line 2: not a JSON object"),
        ('{"timestamp": "0", "input_length": 1, "output_length": 1}', "line 1: timestamp, .* must be numbers"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "line 1: its time is not a number"),
        ('{"timestamp": 0, "input_length": 1.5, "output_length": 1}', "line 1: timestamp, .* must be numbers"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}', "must be numbers"),
        ('{"timestamp": 0, "input_length": 99999999, "output_length": 1}', "line 1: a prompt must have from 1"),
        (b"\xff\xfe{", "not UTF-8"),
    ],
)
def test_a_line_that_is_none_of_a_trace_is_named(model: Path, tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load("trace", model, written(tmp_path, content))


def test_no_more_of_a_trace_is_read_than_is_wanted(model: Path, tmp_path: Path) -> None:
    first = load("trace", model, written(tmp_path, AZURE), queries=2)
    path = written(tmp_path, AZURE + "a line that is none\n")
    assert load("trace", model, path, queries=2) == first, "the same queries, the same hash"
    with path.open("r+b") as file:
        file.truncate(10 * 2**30)  # with a hole in the place of what follows
    assert load("trace", model, path, queries=2) == first
    with pytest.raises(InputError, match="line 5"):
        load("trace", model, path)


@pytest.mark.parametrize(("least", "options"), [("MOST_QUERIES", {}), ("MOST_TOKENS_OF_ALL", {"max_input_tokens": 2})])
def test_a_trace_that_is_too_large_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: str, options: dict[str, int]
) -> None:
    monkeypatch.setattr(trace, least, 3 if least == "MOST_QUERIES" else 6)
    assert len(load("trace", model, written(tmp_path, AZURE), **options).prompts) == 3
    path = written(tmp_path, AZURE + "2023-11-16 18:17:05,9,1\n")
    with pytest.raises(InputError, match=r"use fewer \(queries\), or shorter ones"):
        load("trace", model, path, **options)


def test_a_trace_needs_its_file(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs benchmark_dataset_path"):
        load("trace", model)
    with pytest.raises(SetupError, match="cannot be read"):
        load("trace", model, tmp_path / "absent.jsonl")


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 12))
def test_equal_beginnings_of_blocks_are_equal_tokens(
    model: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, size: int, block: int
) -> None:
    blocks = list(range(-(-size // block)))
    rows = [{"timestamp": n, "input_length": size, "output_length": 1, "hash_ids": blocks} for n in range(2)]
    path = written(tmp_path_factory.getbasetemp(), "\n".join(map(json.dumps, rows)))
    one, other = load("trace", model, path, block_tokens=block, seed=seed).prompts
    assert one.token_ids == other.token_ids
    assert len(one.token_ids or ()) == size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_tokens": {"distribution": "normal", "mean": 5}}, "stddev"),
        ({"input_tokens": {**NORMAL, "distribution": "zipf"}}, "normal or lognormal"),
        ({"input_tokens": {**NORMAL, "most": 50}}, "the mean must be between least and most"),
        ({"input_tokens": {**NORMAL, "least": 0}}, "whole number from 1"),
        ({"input_tokens": {**NORMAL, "least": 10.5}}, "whole number from 1"),
        ({"input_tokens": []}, "whole number from 1"),
        ({"input_tokens": True}, "whole number from 1"),
        ({"input_tokens": 5, "output_tokens": 0}, "output_tokens"),
        ({"input_tokens": 5, "shared_prefix_share": 1.5}, "shared_prefix_share"),
    ],
)
def test_a_distribution_that_is_none_is_refused(model: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load("synthetic", model, prompts=3, **options)
