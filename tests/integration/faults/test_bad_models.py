"""One run of nodes whose model is damaged, whose download fails, or whose memory is full for a real engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub_server import Hub
from tests.integration.conftest import REAL, Done, Playbooks
from tests.integration.faults import spoilt
from tests.integration.faults.fleet import Fleet
from tests.integration.faults.left_over import assert_nothing_runs

TIMEOUT_S = 240
PROFILE = {
    "name": "few",
    "version": 1,
    "kind": "self-test",
    "scenario": "closed_loop",
    "engine": "sequential",
    "dataset": "curated",
    "samples": 6,
    "warmup": 1,
    "generation": {"max_new_tokens": 8, "min_new_tokens": 8},
    "limits": [{"metric": "queries.failed", "at_most": 0}],
    "accuracy": "with-performance",
    "greedy_prompts": 2,
}
# What is said of each that fails: the stage, and the reason in part.
EXPECTED = {
    "cut-weights": "hf_cache: model.safetensors of org/tiny-llama is damaged in",
    "flipped-weights": "hf_cache: model.safetensors of org/tiny-llama is damaged in",
    "broken-config": "hf_cache: config.json of org/tiny-llama is damaged in",
    "no-tokenizer": "hf_cache: tokenizer.json of org/tiny-llama is missing",
    "never-provisioned": "preflight: org/tiny-llama is not in ",
    "unseen-config": "config.json is damaged (",
    "gpu-full-at-load": "benchmark: The GPU's memory is full (CUDA out of memory. Tried to allocate 1002.00 MiB",
    "gpu-full-later": "All of them: The GPU's memory is full (CUDA out of memory. Tried to allocate 1002.00 MiB",
    "node-full": "All of them: The node's memory is full (MemoryError",
    "cut-always": "was lost (RemoteProtocolError): run again to continue the download where it stopped",
    "hub-500": "answers with status 500: run again later; what was downloaded is kept",
    "hub-429": "refuses more requests (429): run again in a few minutes",
    "hub-damages": f"hf_cache: {spoilt.SHARD} of org/large arrived damaged",
    "fetch-killed": "hf_cache: fetch-model was killed (signal 9) while it fetched or verified org/large: did",
    "fills-up": "hf_cache: The disk (or quota) is full at",
}
# With what helps, in part.
HELP = {
    "cut-weights": "run again with hf_cache_source hub or controller, which replaces it",
    "unseen-config": "Provision it again (hf_cache_source hub or controller replaces damaged files in the cache)",
    "gpu-full-at-load": "End whatever else uses the GPU (nvidia-smi shows it)",
    "gpu-full-later": "fewer max_new_tokens in a profile of your own",
    "node-full": "raise this user's limit (ulimit -v",
    "hub-429": "hf_cache_source: controller one machine downloads for all",
    "fills-up": "make room or set hf_cache_dir to a larger disk",
}
# Of these what was measured is kept, and invalid.
INVALID = ("gpu-full-later", "node-full")
WHOLE = ("fine", "healed", "cut-often", "unseen-weights")
DOWNLOADS = ("cut-always", "hub-500", "hub-429", "hub-damages", "fills-up", "fetch-killed")
DAMAGED = ("cut-weights", "flipped-weights", "broken-config", "no-tokenizer", "never-provisioned", "unseen-config")


@dataclass
class Ended:
    """The run, how long it took, and the hubs that its nodes asked."""

    fleet: Fleet
    done: Done
    took_s: float
    hubs: dict[str, Hub]


@pytest.fixture(scope="module")
def ended(cluster: Any, full_venv: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Run the playbook once on all of these nodes."""
    if os.geteuid() != 0:
        pytest.skip("file systems of a few megabytes take root to mount")
    directory = tmp_path_factory.mktemp("models")
    playbooks = Playbooks(cluster, directory, full_venv, tmp_path_factory.mktemp("cp"))
    (directory / "profile.yaml").write_text(yaml.safe_dump(PROFILE))
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    fleet = Fleet(playbooks, first_address=120)
    try:
        with ExitStack() as stack:
            hub = stack.enter_context(Hub())
            commit = spoilt.provision(hub, files, directory / "cache")
            playbooks.variables = {
                "benchmark_profile": str(directory / "profile.yaml"),
                "benchmark_model": spoilt.TINY,
                "benchmark_model_revision": commit,
                "benchmark_timeout_s": TIMEOUT_S,
                "hf_cache_min_free_gb": 0,
                "node_environment": {"HF_ENDPOINT": hub.url},
                **REAL,
            }
            spoilt.provisioned(fleet, "fine", directory / "cache")
            fleet.add("fine")
            spoilt.spoilt_models(fleet, directory / "cache")
            spoilt.full_memories(fleet, directory / "cache")
            hubs = spoilt.bad_hubs(fleet, stack)
            began = time.monotonic()
            done = playbooks.run("benchmark", inventory=playbooks.inventory(fleet.hosts))
            took_s = time.monotonic() - began
            assert_nothing_runs(directory / "nodes")
            yield Ended(fleet, done, took_s, hubs)
    finally:
        fleet.close()


@pytest.mark.timeout(900)
def test_every_fault_is_named_and_fails_its_node_alone(ended: Ended) -> None:
    done = ended.done
    assert done.code == 2, done.output
    assert ended.fleet.hosts.keys() == {*EXPECTED, *WHOLE}
    wrong = []
    for name, said in EXPECTED.items():
        row, invalid = done.row(name), name in INVALID
        told = said in row["reason"] and HELP.get(name, "") in row["reason"]
        if row["status"] != ("complete" if invalid else "failed") or not told:
            wrong.append((name, row["status"], row["reason"]))
        if invalid and row["verdict"]["valid"]:
            wrong.append((name, "its verdict is valid", row["reason"]))
        if done.recap(name)["failed"] != int(not invalid):
            wrong.append((name, "whether its task failed", str(done.recap(name))))
    assert not wrong, done.output[-20000:]
    assert ended.took_s < TIMEOUT_S + 60


def test_the_others_results_are_whole(ended: Ended) -> None:
    for name in WHOLE:
        row = ended.done.row(name)
        assert (row["status"], row["counted"]) == ("complete", True), row
        assert row["metrics"]["queries"]["completed"] == PROFILE["samples"]
        assert ended.done.recap(name)["failed"] == 0


@pytest.mark.parametrize("name", INVALID)
def test_what_was_answered_before_memory_was_full_is_kept(ended: Ended, name: str) -> None:
    queries = ended.done.row(name)["metrics"]["queries"]
    assert (queries["completed"], queries["failed"]) == (2, 4)


def test_weights_that_changed_unseen_are_found_by_their_answers(ended: Ended) -> None:
    (agreement,) = ended.done.cluster["agreements"]
    assert [(one["node"], one["others"]) for one in agreement["disagreements"]] == [("unseen-weights", ["fine"])]


def test_a_download_cut_again_and_again_goes_on_where_it_stopped(ended: Ended) -> None:
    assert spoilt.whole(ended.fleet, "cut-often")
    asked = {request.range for request in ended.hubs["cut-often"].downloads() if request.to_storage}
    assert {f"bytes={chunks * 10 * 2**20}-" for chunks in (1, 2, 3)} <= asked


def test_run_again_as_the_sentences_say_everything_is_whole(ended: Ended, tiny_model: Path) -> None:
    playbooks = ended.fleet.playbooks
    for name in DOWNLOADS:
        assert not list(ended.fleet.place(name).rglob("snapshots/*")), "nothing is taken for whole"
    spoilt.mended(ended.hubs, ended.fleet.place("fills-up"))
    words = ["--limit", ":".join((*DOWNLOADS, *DAMAGED)), "-e", "hf_cache_source=hub"]
    done = playbooks.run("provision", *words, inventory=playbooks.inventory(ended.fleet.hosts))
    assert done.code == 0, done.output
    for name in DOWNLOADS:
        assert spoilt.whole(ended.fleet, name)
    want = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    for name in DAMAGED:
        (snapshot,) = ended.fleet.place(name).glob("huggingface/hub/models--*/snapshots/*")
        assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == want
