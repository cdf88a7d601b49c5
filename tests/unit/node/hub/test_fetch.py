"""The snapshot in the cache: what comes, what is refused, what a second run does, against a stand-in for the hub."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from benchmark.commands import fetch_model as command
from benchmark.errors import BenchmarkError, InputError, RunError, SetupError
from benchmark.node.hub.cache import Manifest, RepositoryCache
from benchmark.node.hub.fetch import Fetched, fetch
from benchmark.node.model.load import find_snapshot
from benchmark.settings import Settings
from tests.hub_server import Hub, Model, small_model

MODEL = "org/small"
TOKEN = "hf_" + "s3cret" * 5
CHECKOUT = Path(__file__).resolve().parents[4]
WANTED = {
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield made


@pytest.fixture
def model(hub: Hub) -> Model:
    return hub.add(MODEL, small_model())


def bring(cache: Path, revision: str = "main", token: str | None = None, **options: Any) -> Fetched:
    return fetch(options.pop("model", MODEL), revision, cache, token, **options)


def refused(kind: type[BenchmarkError], *words: str, **arguments: Any) -> str:
    """Return the one sentence of a refusal, which holds all `words`."""
    with pytest.raises(kind) as raised:
        bring(**arguments)
    text = str(raised.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def files_under(directory: str | None) -> set[str]:
    assert directory is not None
    root = Path(directory)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def tree(directory: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in directory.rglob("*")}


def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as closed:
        pass
    monkeypatch.setenv("HF_ENDPOINT", closed.url)


def test_brings_what_loading_needs_and_nothing_else(model: Model, tmp_path: Path) -> None:
    fetched = bring(tmp_path, model.commit)
    assert fetched.changed
    assert fetched.commit == model.commit
    assert files_under(fetched.snapshot) == WANTED
    assert fetched.files == len(WANTED)
    assert fetched.bytes == sum(len(model.files[name]) for name in WANTED)
    for name in WANTED:
        assert (Path(str(fetched.snapshot)) / name).read_bytes() == model.files[name]


def test_the_cache_is_one_that_huggingface_hub_knows(hub: Hub, model: Model, tmp_path: Path) -> None:
    fetched = bring(tmp_path)
    asked = len(hub.requests)
    found = snapshot_download(MODEL, revision="main", cache_dir=tmp_path / "hub", local_files_only=True)
    assert found == fetched.snapshot
    assert len(hub.requests) == asked
    scanned = scan_cache_dir(tmp_path / "hub")
    assert not scanned.warnings
    assert not scanned.incomplete_files
    (repo,) = scanned.repos
    (revision,) = repo.revisions
    assert (revision.commit_hash, revision.refs) == (model.commit, {"main"})
    assert {Path(file.file_path).name for file in revision.files} == WANTED


def test_takes_over_what_huggingface_hub_brought(hub: Hub, model: Model, tmp_path: Path) -> None:
    snapshot_download(MODEL, revision=model.commit, cache_dir=tmp_path / "hub", endpoint=hub.url)
    downloads = len(hub.downloads())
    fetched = bring(tmp_path, model.commit)
    assert not fetched.changed
    assert len(hub.downloads()) == downloads


def test_what_it_completed_is_what_a_run_finds(hub: Hub, model: Model, tmp_path: Path) -> None:
    # huggingface_hub leaves a listing of the whole repository, of which only a part is wanted here.
    snapshot_download(
        MODEL, revision=model.commit, cache_dir=tmp_path / "hub", endpoint=hub.url, allow_patterns=["config.json"]
    )
    settings = Settings(
        benchmark_model=MODEL, benchmark_model_revision=model.commit, hf_cache_dir=str(tmp_path), benchmark_device="cpu"
    )
    with pytest.raises(SetupError):
        find_snapshot(settings)
    fetched = bring(tmp_path, model.commit)
    assert str(find_snapshot(settings)) == fetched.snapshot


def test_a_second_run_of_a_pinned_commit_changes_nothing(hub: Hub, model: Model, tmp_path: Path) -> None:
    first = bring(tmp_path, model.commit)
    asked, before = len(hub.requests), tree(tmp_path)
    second = bring(tmp_path, model.commit)
    assert (second.changed, second.snapshot, second.bytes) == (False, first.snapshot, first.bytes)
    assert len(hub.requests) == asked
    assert tree(tmp_path) == before


def test_a_branch_is_asked_for_again_and_followed(hub: Hub, model: Model, tmp_path: Path) -> None:
    bring(tmp_path)
    downloads = len(hub.downloads())
    assert not bring(tmp_path).changed
    assert len(hub.downloads()) == downloads
    moved = hub.add(MODEL, {**model.files, "config.json": b'{"model_type": "llama", "new": true}'})
    fetched = bring(tmp_path)
    assert fetched.changed
    assert fetched.commit == moved.commit != model.commit
    assert len(hub.downloads()) == downloads + 1


@pytest.mark.parametrize("harm", ["truncate", "alter", "remove", "unlink"])
def test_a_harmed_file_is_noticed_and_brought_again(hub: Hub, model: Model, tmp_path: Path, harm: str) -> None:
    fetched = bring(tmp_path, model.commit)
    name = "model-00001-of-00002.safetensors"
    path = Path(str(fetched.snapshot)) / name
    blob = path.resolve()
    if harm == "truncate":
        os.truncate(blob, 10)
    elif harm == "alter":
        blob.write_bytes(bytes(len(model.files[name])))
    elif harm == "remove":
        blob.unlink()
    else:
        path.unlink()
    before = len(hub.downloads())
    assert bring(tmp_path, model.commit, check=True).changed
    assert bring(tmp_path, model.commit).changed
    assert path.read_bytes() == model.files[name]
    # One redirect and one transfer of that file; a link alone is made without the network.
    assert len(hub.downloads()) - before == (0 if harm == "unlink" else 2)
    assert not bring(tmp_path, model.commit).changed


def test_a_file_that_only_looks_newer_is_hashed_once_and_kept(hub: Hub, model: Model, tmp_path: Path) -> None:
    fetched = bring(tmp_path, model.commit)
    asked = len(hub.requests)
    blob = (Path(str(fetched.snapshot)) / "config.json").resolve()
    os.utime(blob, ns=(1, 1))
    assert not bring(tmp_path, model.commit).changed
    cache = RepositoryCache(tmp_path, MODEL)
    manifest = cache.manifest(model.commit)
    assert manifest is not None
    assert cache.intact(manifest)
    assert len(hub.requests) == asked


def test_an_interrupted_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    # More than one chunk of http_get (10 MiB), so that something has been written when the connection is cut.
    size = 11 * 2**20
    model = hub.add(MODEL, {**small_model(), "model-00001-of-00002.safetensors": os.urandom(size)})
    hub.cut_after, hub.down_after_cut = size - 1000, True
    refused(RunError, "run again", cache=tmp_path, revision=model.commit)
    assert not (tmp_path / "hub" / "models--org--small" / "snapshots").exists()
    assert bring(tmp_path, model.commit, check=True).changed
    hub.recover()
    hub.requests.clear()
    fetched = bring(tmp_path, model.commit)
    assert fetched.changed
    assert (Path(str(fetched.snapshot)) / "model-00001-of-00002.safetensors").stat().st_size == size
    assert "bytes=10485760-" in {request.range for request in hub.downloads() if request.to_storage}
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_connection_cut_once_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    size = 11 * 2**20
    model = hub.add(MODEL, {**small_model(), "model-00001-of-00002.safetensors": os.urandom(size)})
    hub.cut_after = 10_600_000
    assert bring(tmp_path, model.commit).changed
    assert any(request.range for request in hub.downloads())


def test_a_damaged_rest_of_an_earlier_call_is_thrown_away(hub: Hub, model: Model, tmp_path: Path) -> None:
    cache = RepositoryCache(tmp_path, MODEL)
    file = listing().files["model-00001-of-00002.safetensors"]
    cache.blobs.mkdir(parents=True)
    cache.partial(file).write_bytes(b"x" * 400)
    bring(tmp_path, model.commit)
    assert cache.blob(file).read_bytes() == model.files["model-00001-of-00002.safetensors"]


def test_content_that_arrives_damaged_never_counts(hub: Hub, model: Model, tmp_path: Path) -> None:
    hub.damaged = {"model-00002-of-00002.safetensors"}
    refused(RunError, "model-00002-of-00002.safetensors", "damaged", "Run again", cache=tmp_path)
    assert not (tmp_path / "hub" / "models--org--small" / "snapshots").exists()
    hub.damaged.clear()
    assert bring(tmp_path).changed


def test_a_gated_model(hub: Hub, tmp_path: Path) -> None:
    hub.add(MODEL, small_model(), needs_token=TOKEN)
    hub.tokens.add("hf_another")
    without = refused(SetupError, "gated", "accept the licence at", f"{hub.url}/{MODEL}", "HF_TOKEN", cache=tmp_path)
    stranger = refused(SetupError, "gated", "no access", "HF_TOKEN", cache=tmp_path, token="hf_another")
    assert without != stranger
    assert "hf_another" not in stranger
    assert bring(tmp_path, token=TOKEN).changed
    # Storage is another origin: the token must not be shown there.
    assert not any(request.authorised for request in hub.requests if request.to_storage)


def test_what_the_hub_does_not_have(hub: Hub, model: Model, tmp_path: Path) -> None:
    refused(InputError, "org/none", "not found", "benchmark_model", cache=tmp_path, model="org/none")
    refused(InputError, "revision v9", "benchmark_model_revision", cache=tmp_path, revision="v9")
    refused(InputError, "revision", "benchmark_model_revision", cache=tmp_path, revision="0" * 40)
    wrong = refused(InputError, "401", "HF_TOKEN", cache=tmp_path, token="hf_wrong")
    assert "hf_wrong" not in wrong
    assert not list(tmp_path.rglob("*"))


def test_a_repository_that_cannot_be_loaded(hub: Hub, tmp_path: Path) -> None:
    hub.add(MODEL, {"config.json": b"{}", "pytorch_model.bin": b"pickled"})
    refused(SetupError, "no *.safetensors", cache=tmp_path)
    hub.add(MODEL, {"model.safetensors": b"weights"})
    refused(SetupError, "config.json", cache=tmp_path)


def test_too_little_disk_is_said_before_anything_is_downloaded(hub: Hub, model: Model, tmp_path: Path) -> None:
    model.sizes["model-00001-of-00002.safetensors"] = 10**16
    refused(SetupError, "10000000.0 GB", "free at", str(tmp_path), "hf_cache_dir", cache=tmp_path)
    model.sizes.clear()
    refused(SetupError, "hf_cache_min_free_gb is 1e+09", cache=tmp_path, min_free_gb=1e9)
    assert not hub.downloads()
    bring(tmp_path, model.commit)
    # Nothing is missing any more, so nothing is needed.
    assert not bring(tmp_path, model.commit, min_free_gb=1e9).changed


def test_a_disk_that_fills_up_is_reported_in_a_sentence(hub: Hub, model: Model, tmp_path: Path) -> None:
    cache = RepositoryCache(tmp_path, MODEL)
    cache.blobs.mkdir(parents=True)
    for file in listing().files.values():
        cache.partial(file).symlink_to("/dev/full")
    refused(SetupError, "full", str(tmp_path), "hf_cache_dir", cache=tmp_path, revision=model.commit)


@pytest.mark.parametrize(
    ("status", "words"),
    [(500, ("status 500", "run again later")), (429, ("(429)", "hf_cache_token", "hf_cache_source: controller"))],
)
def test_a_hub_that_answers_nobody_is_reported_in_a_sentence(
    hub: Hub, model: Model, tmp_path: Path, status: int, words: tuple[str, ...]
) -> None:
    hub.refuse_with = status
    refused(RunError, *words, "what was downloaded is kept", cache=tmp_path, revision=model.commit)
    assert not list(tmp_path.rglob("snapshots"))
    hub.recover()
    assert bring(tmp_path, model.commit).changed


def test_an_unwritable_cache_is_reported_in_a_sentence(model: Model, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where a directory is to be")
    refused(SetupError, str(tmp_path / "hub"), "hf_cache_dir", cache=tmp_path, revision=model.commit)


def test_no_network(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path / "there", model.commit)
    no_hub(monkeypatch)
    refused(
        SetupError, "cannot be reached", "hf_cache_source", "controller", cache=tmp_path / "new", revision=model.commit
    )
    assert not bring(tmp_path / "there", model.commit).changed
    assert not bring(tmp_path / "there", model.commit, check=True).changed
    assert bring(tmp_path / "new", model.commit, check=True) == Fetched(True, None, None, 0, 0)


def test_check_changes_nothing(model: Model, tmp_path: Path) -> None:
    fetched = bring(tmp_path, check=True)
    assert fetched.changed
    assert len(fetched.missing) == len({model.files[name] for name in WANTED})
    assert not list(tmp_path.rglob("*"))


def test_offline_verifies_by_the_names_of_the_blobs(hub: Hub, model: Model, tmp_path: Path) -> None:
    refused(SetupError, "is not in", "hf_cache_source", cache=tmp_path, offline=True)
    snapshot = Path(str(bring(tmp_path).snapshot))
    for manifest in (tmp_path / "llm-benchmark").rglob("*.json"):
        manifest.unlink()
    asked = len(hub.requests)
    assert not bring(tmp_path, offline=True).changed
    assert len(hub.requests) == asked
    blob = (snapshot / "config.json").resolve()
    blob.write_bytes(b'{"model_type": "LLAMA"}')
    refused(RunError, "config.json", "damaged", cache=tmp_path, offline=True)
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    for manifest in (tmp_path / "llm-benchmark").rglob("*.json"):
        manifest.unlink()
    refused(SetupError, "incomplete", "model-00002-of-00002.safetensors", cache=tmp_path, offline=True)


def test_what_a_controller_pushed_is_verified_and_linked(hub: Hub, model: Model, tmp_path: Path) -> None:
    bring(tmp_path / "controller")
    listing = RepositoryCache(tmp_path / "controller", MODEL).manifest(model.commit)
    assert listing is not None
    listing, node = listing.unverified(), RepositoryCache(tmp_path / "node", MODEL)
    asked = len(hub.requests)
    reported = bring(tmp_path / "node", offline=True, check=True, listing=listing)
    assert set(reported.missing) == {file.etag for file in listing.files.values()}
    node.blobs.mkdir(parents=True)
    for name, file in listing.files.items():
        node.partial(file).write_bytes(model.files[name])
    assert bring(tmp_path / "node", offline=True, listing=listing).changed
    assert not bring(tmp_path / "node", offline=True, listing=listing).changed
    assert not bring(tmp_path / "node", offline=True).changed
    assert len(hub.requests) == asked
    weights = listing.files["model-00001-of-00002.safetensors"]
    node.blob(weights).unlink()
    node.partial(weights).write_bytes(bytes(weights.size))
    refused(RunError, "arrived damaged", cache=tmp_path / "node", offline=True, listing=listing)
    assert not node.partial(weights).exists()


@pytest.mark.parametrize(("name", "revision"), [("org", "main"), ("../x", "main"), (MODEL, "../x"), (MODEL, "a/../b")])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, revision: str) -> None:
    with pytest.raises(InputError):
        fetch(name, revision, tmp_path, None)


def test_a_repository_cannot_write_outside_its_snapshot(hub: Hub, tmp_path: Path) -> None:
    hub.add(MODEL, {**small_model(), "../../../../evil.json": b"{}"})
    refused(SetupError, "refused", cache=tmp_path)


def test_two_processes_at_once_download_once(hub: Hub, tmp_path: Path) -> None:
    model = hub.add(MODEL, small_model(200_000))
    words = [sys.executable, "-m", "benchmark", "fetch-model",
             "--model", MODEL, "--revision", model.commit, "--cache-dir", str(tmp_path)]  # fmt: skip
    running = [
        subprocess.Popen(words, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [json.loads(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len({answer["snapshot"] for answer in answers}) == 1
    assert len([r for r in hub.downloads() if r.to_storage]) == 2
    assert not bring(tmp_path, model.commit).changed


def test_the_command_reads_the_token_from_standard_input(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gated = hub.add(MODEL, small_model(), needs_token=TOKEN)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--model", MODEL, "--revision", gated.commit, "--cache-dir", str(tmp_path)]
    monkeypatch.setattr("sys.stdin", io.StringIO(TOKEN + "\n"))
    assert command.main(parser.parse_args(words)) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["commit"] == gated.commit
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


def test_an_environment_token_is_not_used(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(MODEL, small_model(), needs_token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused(SetupError, "gated", cache=tmp_path)


def listing() -> Manifest:
    from benchmark.node.hub.download import Hub as Client

    return Client(MODEL, "main", None).listing()
