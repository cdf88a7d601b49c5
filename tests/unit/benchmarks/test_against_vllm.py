"""What the comparison with vLLM asks, and what it makes of the answers; the engines themselves need a GPU."""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from benchmark.node.hosting import make_engine
from benchmark.node.model.tiny import make_tiny_model
from benchmark.profiles import Generation
from benchmark.settings import Settings
from benchmarks import against_vllm
from benchmarks.against_vllm import Job
from tests.openai_server import OpenAIServer

# Notes how it was called, and says that all went well.
VLLM = """#!{python}
import json, sys
from pathlib import Path

words = sys.argv[1:]
Path(sys.argv[0]).with_name("words.json").write_text(json.dumps(words))
figures = ("p50_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_tpot_ms", "request_throughput", "output_throughput")
result = {{**dict.fromkeys(figures, 1.0), "completed": 2, "total_input_tokens": 9}}
place = Path(words[words.index("--result-dir") + 1], words[words.index("--result-filename") + 1])
place.write_text(json.dumps(result))
"""


def given(**changes: Any) -> argparse.Namespace:
    asked = {"offline": 0, "loads": ["500/30@2"], "seconds": 2.0, "shrink": 16, "vocabulary": 300, "options": {}}
    about = {
        "rest": 0,
        "model": "",
        "vllm_dir": "/none",
        "url": "",
        "device": "cpu",
        "dtype": "float32",
        "engines": "continuous",
    }
    return argparse.Namespace(**{**asked, **about, **changes})


def test_each_rate_of_each_limit_is_a_load() -> None:
    asked = against_vllm.jobs(given(offline=8, loads=["2000/100@31.25,36", "500/30@28"]))
    assert [job.name for job in asked] == ["Offline", "2000/100 at 31.25/s", "2000/100 at 36/s", "500/30 at 28/s"]
    with pytest.raises(SystemExit, match="100/5 is not one of even, 2000/100, 500/30"):
        against_vllm.jobs(given(loads=["100/5@1"]))


@pytest.mark.parametrize(
    ("ttft", "tpot", "failed", "valid"),
    [(500, 30, 0, True), (501, 30, 0, False), (500, 30.1, 0, False), (1, 1, 1, False), (None, 30, 0, None)],
)
def test_a_load_is_valid_within_its_limits(
    ttft: float | None, tpot: float | None, failed: int, valid: bool | None
) -> None:
    row = {"P99": ttft, "TPOT P99": tpot, "failed": failed}
    assert Job("500/30", 28, 1).valid(row) is valid
    assert Job(against_vllm.OFFLINE).valid(row) is None


def test_a_rate_has_as_many_queries_as_come_in_its_time() -> None:
    assert Job("even", 2.5, 4).queries(99) == 10
    assert Job(against_vllm.OFFLINE).queries(99) == 99


def test_what_only_one_engine_had_is_not_compared() -> None:
    figures = {"tokens/s": 20.0, "TTFT P50": 1.0, "P99": 4.0, "TPOT mean": 1.0, "TPOT P99": 3.0}
    rows: list[dict[str, Any]] = [
        {"load": "a", "engine": "continuous", **figures},
        {"load": "b", "engine": "continuous", **figures},
        {"load": "b", "engine": "vllm", "note": "it did not start"},
        {"load": "a", "engine": "vllm", **figures, "tokens/s": 10.0, "P99": None},
    ]
    ratio = "tokens/s 2.000, TTFT P50 1.000, TPOT mean 1.000, TPOT P99 1.000"
    assert list(against_vllm.ratios(rows)) == [f"a: continuous / vllm: {ratio}"]


def test_a_tiny_model_goes_through_loadgen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_vllm, "WARM_UP", 2)  # a CPU has no kernels that would settle
    make_tiny_model(tmp_path / "model")
    asked = given(model=str(tmp_path / "model"), loads=["500/30@2", "even@4"])
    note, row = against_vllm.continuous(asked, "500/30")
    assert "max_batch_tokens" in note["note"]
    assert row["load"] == "500/30 at 2/s"
    assert row["failed"] == 0
    assert row["queries"] >= 4
    assert row["tokens/s"] == pytest.approx(8 * row["QPS"])
    assert row["TPOT P99"] > 0
    _, even = against_vllm.continuous(asked, against_vllm.EVEN)
    assert (even["load"], even["queries"], even["failed"], even["valid"]) == ("even at 4/s", 8, 0, None)


@pytest.mark.parametrize("without", [[], ["min_tokens"]])
def test_its_client_asks_for_what_our_engine_asks(tmp_path: Path, without: list[str]) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(VLLM.format(python=sys.executable))
    program.chmod(0o755)
    make_tiny_model(tmp_path / "model")
    asked, even = given(vllm_dir=str(tmp_path), model=str(tmp_path / "model")), Job(against_vllm.EVEN, 4, 0.5)
    with OpenAIServer() as server:
        settings = Settings(
            benchmark_device="cpu", benchmark_endpoint_urls=[server.url], benchmark_endpoint_model="served"
        )
        engine = make_engine("endpoint", settings, Generation(max_new_tokens=8, min_new_tokens=8), {})
        engine.load()
        ours, lengths = against_vllm.measured(asked, "vllm", engine, even, tmp_path)
        sent = server.seen[-1]
        row = against_vllm.own_client(asked, engine, even, tmp_path, lengths, without)
        engine.close()
    assert (ours["failed"], row["queries"], row["failed"]) == (0, 2, 0)
    assert lengths == [len(request["prompt"]) for request in server.seen[-2:]]
    assert row["engine"] == " without ".join(["its client", *without])
    words = json.loads((tmp_path / "bin" / "words.json").read_text())
    fields = json.loads(words[words.index("--extra-body") + 1])
    assert fields.keys() == sent.keys() - {"model", "prompt", "stream", "route", "key", *without}
    assert {**fields, "seed": 0} == {name: sent[name] for name in fields} | {"seed": 0}
    assert (fields["temperature"], fields.get("min_tokens", 8), fields["ignore_eos"]) == (0, 8, True)


def test_its_client_asks_for_as_many_tokens(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    tokenizer = Tokenizer.from_file(f"{tmp_path}/model/tokenizer.json")
    text = "".join(random.Random(1).choices(string.ascii_letters, k=400))
    assert len(tokenizer.encode(text).ids) < 400  # some letters are a token together
    prompt = against_vllm._letters(tokenizer, 400, random.Random(1))
    assert len(tokenizer.encode(prompt).ids) == 400
