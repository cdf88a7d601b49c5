"""Cached prompt tokens by servers' own counters, by usage, and what is said where neither is known."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from benchmark.cluster.aggregate import gather
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.node.interfaces import Answer, Prompt, Query
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.run import RunRequest, run
from benchmark.node.serving.cache_counters import Reading, Tally, parse, prefix_cache
from benchmark.node.serving.provisioned import free_port
from benchmark.records import NodeResult, PrefixCache
from benchmark.resolve import resolve
from benchmark.rundir import NODES
from benchmark.settings import ResolvedSettings
from benchmark.text.node_result import render_node
from tests.openai_server import Counters, OpenAIServer
from tests.unit.building import RUN_ID, make_run
from tests.unit.node.endpoint.asked import Loaded
from tests.unit.node.heard import Heard
from tests.unit.node.serving.conftest import LLAMA

URLS = ["http://one", "http://two"]


def vllm(hits: int, queries: int, engine: str = "0", name: str = "vllm:prefix_cache", end: str = "_total") -> str:
    labels = f'{{engine="{engine}",model_name="a }} b"}}'
    return f"{name}_hits{end}{labels} {hits}.0\n{name}_queries{end}{labels} {queries}.0\n"


def known(before: str, after: str, *answers: Answer) -> PrefixCache:
    """Return what one server's two pages and the answers say."""
    return prefix_cache(URLS[:1], [parse(before)], [parse(after)], tally(*answers))


def tally(*answers: Answer) -> Tally:
    counted = Tally()
    for answer in answers:
        counted.add(answer)
    return counted


def test_counters_are_summed_over_engines_and_servers() -> None:
    one = [parse(vllm(10, 100) + vllm(5, 50, "1")), parse(vllm(30, 200) + vllm(6, 60, "1"))]
    two = [parse(vllm(0, 0)), parse(vllm(100, 1000))]
    both = prefix_cache(URLS, [one[0], two[0]], [one[1], two[1]], Tally())
    assert both == PrefixCache(cached_tokens=121, prompt_tokens=1110, source="vllm:prefix_cache_hits_total")


NAMES: dict[str, tuple[str, str, int, int]] = {
    "vllm, newer text format": (vllm(1, 16, end=""), vllm(33, 80, end=""), 32, 64),
    "vllm, older": (vllm(1, 16, name="vllm:gpu_prefix_cache"), vllm(33, 80, name="vllm:gpu_prefix_cache"), 32, 64),
    "vllm, both names": (
        vllm(1, 16) + vllm(1, 16, name="vllm:gpu_prefix_cache"),
        vllm(33, 80) + vllm(33, 80, name="vllm:gpu_prefix_cache"),
        32,
        64,
    ),
    "vllm with a connector": (
        vllm(1, 16) + vllm(0, 0, name="vllm:external_prefix_cache"),
        vllm(1, 80) + vllm(48, 64, name="vllm:external_prefix_cache"),
        48,
        64,
    ),
    "sglang, by where it was cached": (
        "sglang:prompt_tokens_total 100\n",  # the other counter comes with the first hit
        'sglang:prompt_tokens_total 400\nsglang:cached_tokens_total{cache_source="device"} 20\n'
        'sglang:cached_tokens_total{cache_source="host"} 5\n',
        25,
        300,
    ),
    "tensorrt-llm": (
        "trtllm_prompt_tokens_total 10\ntrtllm_prompt_cached_tokens_total 0\n",
        "trtllm_prompt_tokens_total 110\ntrtllm_prompt_cached_tokens_total 64\n",
        64,
        100,
    ),
    "triton's tensorrt-llm, in blocks": (
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="reused",version="1"} 2\n'
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",version="1"} 64\n',
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="reused",version="1"} 5\n'
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",version="1"} 64\n',
        192,
        250,
    ),
    "llama.cpp, which counts what it computed": (
        "llamacpp:prompt_tokens_total 50\n",
        "llamacpp:prompt_tokens_total 110\n",
        190,
        250,
    ),
}


@pytest.mark.parametrize("server", NAMES)
def test_each_server_has_its_own_names(server: str) -> None:
    before, after, cached, prompts = NAMES[server]
    found = known(before, after, Answer(125, 4), Answer(125, 4))
    assert (found.cached_tokens, found.prompt_tokens) == (cached, prompts)


def test_a_declared_counter_that_has_not_counted_is_zero() -> None:
    page = "# HELP vllm:prefix_cache_hits_total x\n# TYPE vllm:prefix_cache_hits_total counter\n"
    found = known(page, page, Answer(30, 4))
    assert found == PrefixCache(cached_tokens=0, prompt_tokens=30, source="vllm:prefix_cache_hits_total")


UNKNOWN: dict[str, tuple[str, str, str]] = {
    "one engine restarted": (
        vllm(50, 90) + vllm(1, 5, "1"),
        vllm(0, 10) + vllm(99, 500, "1"),
        "fell during the measurement",
    ),
    "its counters are above those before": (
        vllm(50, 90) + "process_start_time_seconds 1.5\n",
        vllm(60, 100) + "process_start_time_seconds 1000\n",
        "restarted during",
    ),
    "an engine is gone": (vllm(5, 90) + vllm(5, 5, "1"), vllm(9, 90), "fell during the measurement"),
    "other counters": ("tgi_request_count 1\n", "tgi_request_count 9\n", "no counter of cached prompt tokens"),
    "no counters": ("<html>", "<html>", "no counter of cached prompt tokens"),
    "no number": ("vllm:prefix_cache_hits_total NaN\n", "vllm:prefix_cache_hits_total 1e300\n", "no counter"),
    "it came while measuring": ("", vllm(10, 90), "did not exist before"),
    "llama.cpp restarted": ("llamacpp:prompt_tokens_total 9\n", "llamacpp:prompt_tokens_total 8\n", "fell during"),
    "another replica answered": (
        vllm(0, 0) + "vllm:prompt_tokens_total 10\n",
        vllm(0, 0) + "vllm:prompt_tokens_total 40\n",
        "counted 30 of the 250 prompt tokens",
    ),
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_what_cannot_be_known_is_not_zero(reason: str) -> None:
    before, after, said = UNKNOWN[reason]
    found = known(before, after, Answer(125, 4), Answer(125, 4))
    assert (found.cached_tokens, found.prompt_tokens) == (None, None)
    assert said in found.source
    assert "no usage.prompt_tokens_details in the answers" in found.source


def test_one_silent_server_of_two_makes_no_hits_unknown() -> None:
    silent = Reading(why="/metrics: HTTP 404: Not Found")
    none = prefix_cache(URLS, [parse(vllm(5, 90)), silent], [parse(vllm(5, 190)), silent], Tally())
    assert none.cached_tokens is None
    assert none.source.startswith("unknown for http://two (/metrics: HTTP 404: Not Found)")
    some = prefix_cache(URLS, [parse(vllm(5, 90)), silent], [parse(vllm(37, 190)), silent], Tally())
    assert some.cached_tokens == 32
    assert "unknown for http://two" in some.source


def test_usage_of_every_answer_needs_no_counters() -> None:
    silent = Reading(why="/metrics: HTTP 404: Not Found")
    found = prefix_cache(URLS[:1], [silent], [silent], tally(Answer(100, 4, cached_tokens=0)))
    assert (found.cached_tokens, found.prompt_tokens) == (0, 100)
    assert found.source == "usage.prompt_tokens_details.cached_tokens of 1 of 1 answers"


def test_the_larger_of_counters_and_usage_is_the_figure() -> None:
    less, more = Answer(100, 4, cached_tokens=16), Answer(100, 4, cached_tokens=64)
    assert known(vllm(0, 0), vllm(32, 100), less).cached_tokens == 32
    found = known(vllm(0, 0), vllm(32, 100), more)
    assert (found.cached_tokens, found.prompt_tokens) == (64, 100)
    assert found.source == "usage.prompt_tokens_details.cached_tokens of 1 of 1 answers"
    assert known("", "", Answer(100, 4, cached_tokens=0)).cached_tokens == 0
    assert known("", "", Answer(100, 4, cached_tokens=0), Answer(100, 4)).cached_tokens is None
    assert known("", "", more, Answer(100, 4)).cached_tokens == 64


def test_a_measurement_reads_before_and_after_alone(server: OpenAIServer, loaded: Loaded) -> None:
    server.counters = Counters()
    engine = loaded(server.url)
    ids = tuple(range(1, 41))

    def ask(index: int) -> None:
        heard = Heard()
        engine.submit(Query(index=index, prompt=Prompt(id="p", text="", token_ids=ids), seed=1), heard)
        heard.wait(1)

    ask(0)  # the warm-up computes the prompt
    engine.begin_window()
    reads = server.asked.count("/metrics")
    ask(1)
    ask(2)
    assert server.asked.count("/metrics") == reads
    serving = engine.end_window()
    assert serving is not None
    assert serving.prefix_cache == PrefixCache(
        cached_tokens=64, prompt_tokens=80, source="vllm:prefix_cache_hits_total"
    )
    # The next measurement counts from its own beginning.
    engine.begin_window()
    later = engine.end_window()
    assert later is not None
    assert later.prefix_cache is not None
    assert later.prefix_cache.cached_tokens == 0


def test_a_server_that_is_gone_is_unknown(server: OpenAIServer, loaded: Loaded) -> None:
    server.counters = Counters()
    engine = loaded(server.url)
    engine.begin_window()
    server.stop()
    serving = engine.end_window()
    assert serving is not None
    assert serving.prefix_cache is not None
    assert serving.prefix_cache.cached_tokens is None
    assert f"{server.url} cannot be reached" in serving.prefix_cache.source


class Hanging(OpenAIServer):
    """Its counters never come."""

    async def _metrics(self, request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()


def test_counters_that_do_not_come_hold_up_no_measurement(loaded: Loaded) -> None:
    with Hanging((LLAMA,)) as server:
        engine = loaded(server.url)
        engine.begin_window()
        serving = engine.end_window()
        engine.close()
    assert serving is not None
    assert serving.prefix_cache is not None
    assert "/metrics did not answer within 1 s" in serving.prefix_cache.source


VLLM = """
import sys, threading
from tests.openai_server import Counters, OpenAIServer
with OpenAIServer((sys.argv[2],), int(sys.argv[3])) as server:
    server.counters = Counters("--no-enable-prefix-caching" not in sys.argv) if "--no-metrics" not in sys.argv else None
    threading.Event().wait()
"""


def measured(directory: Path, words: str, **profile: Any) -> NodeResult:
    """Return the result of a run that starts such a server: two prompts of 1500 tokens, asked 16 times."""
    make_tiny_model(directory / "model")
    (directory / "vllm.py").write_text(VLLM)
    port, root = free_port(), Path(__file__).parents[4]
    base = resolve(
        {
            "benchmark_profile": "self-test",
            "benchmark_device": "cpu",
            "benchmark_probes": "off",
            "benchmark_engine": "endpoint",
            "benchmark_model": str(directory / "model"),
            "benchmark_endpoint_urls": [f"http://127.0.0.1:{port}"],
            "benchmark_endpoint_start": (
                f"cd {root} && PYTHONPATH={root} exec {sys.executable} {directory}/vllm.py serve {directory}/model "
                f"{port} {words}"
            ),
        }
    )
    changes = {
        **{"samples": 16, "warmup": 0, "dataset": "synthetic", "limits": [{"metric": "queries.failed", "at_most": 0}]},
        "dataset_options": {"input_tokens": 1500, "prompts": 2},
        "generation": {"max_new_tokens": 4, "min_new_tokens": 4},
        **profile,
    }
    asked = ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **changes}}
    )
    run_dir = make_run(directory / RUN_ID, {"jw2": asked})
    return run(RunRequest(RUN_ID, "jw2", asked, run_dir / NODES / "jw2"))


def shown_everywhere(directory: Path, result: NodeResult) -> list[str]:
    """Return the texts of the node and of the cluster, each on one line."""
    gathered = gather(directory / RUN_ID)
    assert gathered.result.counted == 1, gathered.result.nodes[0].reason
    pages = (
        render_node(result),
        render_cluster(gathered.result, gathered.run),
        render_report(gathered, directory / RUN_ID),
    )
    texts = [" ".join(page.split()) for page in pages]
    return [*texts, "".join(prometheus_lines([whole(gathered.run, gathered.result)]))]


def test_vllm_by_default_answers_repeated_prompts_from_its_cache(tmp_path: Path) -> None:
    result = measured(tmp_path, "")
    assert result.verdict is not None
    assert not result.verdict.valid
    # Of 1500 tokens 93 blocks of 16 are cached; each of two prompts is computed once.
    cached = 14 * 93 * 16
    (reason,) = result.verdict.reasons
    assert reason.startswith(f"{cached} of 24000 prompt tokens came from the server's prefix cache")
    *texts, metrics = shown_everywhere(tmp_path, result)
    for text in texts:
        assert f"{cached} of 24000 prompt tokens came from it (vllm:prefix_cache_hits_total)" in text
    assert 'llm_benchmark_cached_prompt_tokens{node="jw2"' in metrics


def test_a_profile_may_want_it(tmp_path: Path) -> None:
    result = measured(tmp_path, "", prefix_caching=True)
    assert result.verdict is not None
    assert result.verdict.valid, result.verdict.reasons
    assert result.serving is not None
    assert result.serving.prefix_cache is not None
    assert result.serving.prefix_cache.cached_tokens == 14 * 93 * 16


def test_without_the_cache_zero_is_known_and_shown(tmp_path: Path) -> None:
    result = measured(tmp_path, "--no-enable-prefix-caching")
    assert result.verdict is not None
    assert result.verdict.valid, result.verdict.reasons
    *texts, metrics = shown_everywhere(tmp_path, result)
    for text in texts:
        assert "prefix cache: 0 of 24000 prompt tokens came from it (vllm:prefix_cache_hits_total)" in text
    assert "llm_benchmark_cached_prompt_tokens" in metrics


def test_what_no_server_reports_is_said_to_be_unknown(tmp_path: Path) -> None:
    result = measured(tmp_path, "--no-metrics")
    assert result.verdict is not None
    assert result.verdict.valid, result.verdict.reasons
    *texts, metrics = shown_everywhere(tmp_path, result)
    for text in texts:
        assert "prefix cache: not reported by the server (unknown for http://127.0.0.1:" in text
    assert "llm_benchmark_cached_prompt_tokens" not in metrics
    # Nor is anything of the settings shown for what the server did not say.
    for text in texts:
        assert "revision and precision not reported by the server" in text
        assert "server version 1.2.3" in text or "precision not reported by the server: 1 node" in text
        assert "float16" not in text.replace("float16 (no effect: the engine is endpoint)", "")
