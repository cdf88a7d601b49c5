"""CNN/DailyMail prepared from the hub's Parquet files, against a stand-in for the hub."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.commands import fetch_dataset as command
from benchmark.errors import BenchmarkError, InputError, RunError, SetupError
from benchmark.node.datasets import cnn_dailymail
from benchmark.node.hub.cache import RepositoryCache
from benchmark.node.hub.dataset import fetch_dataset
from benchmark.node.hub.fetch import fetch
from benchmark.node.hub.files import DATASET
from benchmark.node.hub.prepared import record_path
from benchmark.node.model.tiny import make_tiny_model
from benchmark.settings import Settings
from tests.hub_server import Hub, Model, small_articles

NAME = "org/articles"
PARQUET = "3.0.0/validation-00000-of-00001.parquet"
ROWS = [
    ("(CNN) -- A café opened in {London}. It sells tea.", "A café opened .\nIt sells tea ."),
    ("Rain fell on Tuesday, and on Wednesday too.", "It rained ."),
    ('Sie sagte: "Guten Tag", 안녕하세요.', "A greeting ."),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer puts a token before the text, as Llama 3.1's does."""
    from tokenizers import Tokenizer, processors

    directory = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(directory)
    path = str(directory / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    tokenizer.save(path)
    return directory


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # Loading a tokenizer sets it: what a run uses is what was provisioned.
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield made


@pytest.fixture
def articles(hub: Hub) -> Model:
    return hub.add(f"datasets/{NAME}", small_articles(ROWS))


def settings_of(model: Path | str, cache: Path, revision: str, **more: Any) -> Settings:
    return Settings(
        benchmark_model=str(model),
        hf_cache_dir=str(cache),
        hf_cache_dataset=NAME,
        hf_cache_dataset_revision=revision,
        **more,
    )


def refused(kind: type[BenchmarkError], settings: Settings, *words: str, **options: Any) -> None:
    with pytest.raises(kind) as raised:
        fetch_dataset(settings, options.pop("token", None), **options)
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def tree(directory: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in directory.rglob("*") if not path.is_dir()}


def test_the_prompts_are_those_of_the_reference(articles: Model, model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    settings = settings_of(model, tmp_path, articles.commit)
    done = fetch_dataset(settings, None)
    assert (done.changed, done.prompts, done.commit) == (True, len(ROWS), articles.commit)
    # The reference's procedure: one article at a time through `encode`, within its template.
    template = (
        "Summarize the following news article in 128 tokens. Please output the summary only, without any other text."
        "\n\nArticle:\n{input}\n\nSummary:"
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    expected = [
        {"input": article, "tok_input": tokenizer.encode(template.format_map({"input": article})), "output": summary}
        for article, summary in ROWS
    ]
    assert json.loads(Path(done.path).read_text(encoding="utf-8")) == expected
    assert {entry["tok_input"][0] for entry in expected} == {tokenizer.bos_token_id}
    dataset = cnn_dailymail.load(settings, {})
    assert dataset.sha256 == done.sha256
    assert [prompt.text for prompt in dataset.prompts] == [article for article, _ in ROWS]
    assert [prompt.reference for prompt in dataset.prompts] == [summary for _, summary in ROWS]
    assert dataset.prompts[2].token_ids == tuple(expected[2]["tok_input"])


def test_only_the_validation_split_is_downloaded(hub: Hub, articles: Model, model: Path, tmp_path: Path) -> None:
    fetch_dataset(settings_of(model, tmp_path, articles.commit), None)
    assert {request.path for request in hub.downloads() if not request.to_storage} == {
        f"/datasets/{NAME}/resolve/{articles.commit}/{PARQUET}"
    }
    assert (tmp_path / "hub/datasets--org--articles/snapshots" / articles.commit / PARQUET).is_file()


def test_a_second_call_asks_nobody_and_changes_nothing(hub: Hub, articles: Model, model: Path, tmp_path: Path) -> None:
    settings = settings_of(model, tmp_path, articles.commit)
    first = fetch_dataset(settings, None)
    # Nor does it need the Parquet file any more.
    for blob in (tmp_path / "hub").rglob("blobs/*"):
        blob.unlink()
    hub.requests.clear()
    before = tree(tmp_path)
    for check, offline in ((False, False), (True, False), (False, True)):
        again = fetch_dataset(settings, None, check=check, offline=offline)
        assert (again.changed, again.sha256, again.missing) == (False, first.sha256, [])
    assert tree(tmp_path) == before
    assert hub.requests == []


def test_a_branch_is_asked_for_and_followed(hub: Hub, articles: Model, model: Path, tmp_path: Path) -> None:
    settings = settings_of(model, tmp_path, "main")
    first = fetch_dataset(settings, None)
    assert not fetch_dataset(settings, None).changed
    moved = hub.add(f"datasets/{NAME}", small_articles([*ROWS, ("Another article.", "Another .")]))
    second = fetch_dataset(settings, None)
    assert (second.changed, second.commit, second.prompts) == (True, moved.commit, len(ROWS) + 1)
    assert second.path == first.path


@pytest.mark.parametrize("harm", ["prepared", "truncated", "record", "tokenizer"])
def test_what_is_damaged_or_outdated_is_noticed_and_made_again(
    hub: Hub, articles: Model, tmp_path: Path, harm: str
) -> None:
    model = tmp_path / "model"
    make_tiny_model(model)
    settings = settings_of(model, tmp_path / "cache", articles.commit)
    done = fetch_dataset(settings, None)
    path = Path(done.path)
    content = path.read_bytes()
    if harm == "prepared":
        path.write_bytes(content.replace(b"Tuesday", b"Sunday!"))
    elif harm == "truncated":
        path.write_bytes(content[:-20])
    elif harm == "record":
        record_path(path).write_text("{}")
    else:
        (model / "tokenizer_config.json").write_text((model / "tokenizer_config.json").read_text() + "\n")
    with pytest.raises(SetupError, match=r"provision\.yml"):
        cnn_dailymail.load(settings, {})
    hub.requests.clear()
    assert fetch_dataset(settings, None, check=True).changed
    assert fetch_dataset(settings, None).changed
    assert path.read_bytes() == content
    assert len(cnn_dailymail.load(settings, {}).prompts) == len(ROWS)
    assert hub.requests == []  # the Parquet file was still there


def test_an_interrupted_download_leaves_nothing_that_counts(
    hub: Hub, articles: Model, model: Path, tmp_path: Path
) -> None:
    settings = settings_of(model, tmp_path, articles.commit)
    hub.cut_after, hub.down_after_cut = 1000, True
    refused(RunError, settings, "run again")
    assert not list((tmp_path / "llm-benchmark").rglob("*.json"))
    hub.recover()
    assert fetch_dataset(settings, None).changed
    assert not fetch_dataset(settings, None).changed


def test_content_that_arrives_damaged_never_counts(hub: Hub, articles: Model, model: Path, tmp_path: Path) -> None:
    hub.damaged = {PARQUET}
    refused(RunError, settings_of(model, tmp_path, articles.commit), PARQUET, "damaged")
    assert not list((tmp_path / "llm-benchmark").rglob("cnn_dailymail*"))


def test_what_the_hub_does_not_have(hub: Hub, articles: Model, model: Path, tmp_path: Path) -> None:
    refused(InputError, settings_of(model, tmp_path, "v9"), "revision v9", "hf_cache_dataset_revision", "/datasets/org")
    del hub.models[f"datasets/{NAME}"]
    refused(InputError, settings_of(model, tmp_path, "main"), NAME, "not found", "hf_cache_dataset")
    hub.add(f"datasets/{NAME}", small_articles(ROWS), needs_token="hf_right")
    refused(SetupError, settings_of(model, tmp_path, "main"), "gated", "HF_TOKEN")
    refused(InputError, settings_of(model, tmp_path, "main"), "401", token="hf_wrong")
    assert fetch_dataset(settings_of(model, tmp_path, "main"), "hf_right").changed


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"README.md": b"nothing"}, "holds no 3.0.0/validation-*.parquet"),
        ({PARQUET: b"PAR1 this is not Parquet PAR1"}, "is not a Parquet file"),
        (small_articles([]), "has no articles"),
        ("columns", "article and highlights"),
        ("null", "without text"),
    ],
)
def test_another_dataset_is_refused(hub: Hub, model: Path, tmp_path: Path, files: Any, words: str) -> None:
    import pyarrow
    from pyarrow import parquet

    if isinstance(files, str):
        table = {"columns": {"text": ["x"]}, "null": {"article": ["x", None], "highlights": ["y", "z"]}}[files]
        content = io.BytesIO()
        parquet.write_table(pyarrow.table(table), content)
        files = {PARQUET: content.getvalue()}
    hub.add(f"datasets/{NAME}", files)
    refused(SetupError, settings_of(model, tmp_path, "main"), words, "hf_cache_dataset")
    assert not list((tmp_path / "llm-benchmark").rglob("cnn_dailymail*"))


def test_no_network(articles: Model, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = settings_of(model, tmp_path / "there", articles.commit)
    fetch_dataset(there, None)
    with Hub() as closed:
        pass
    monkeypatch.setenv("HF_ENDPOINT", closed.url)
    assert not fetch_dataset(there, None).changed
    new = settings_of(model, tmp_path / "new", articles.commit)
    refused(SetupError, new, "cannot be reached", "hf_cache_source")
    refused(SetupError, new, "is not in", offline=True)


def test_without_the_model_there_is_no_tokenizer(articles: Model, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "absent", tmp_path, articles.commit)
    refused(SetupError, settings, str(tmp_path / "absent"))
    # With check it would have been fetched before.
    reported = fetch_dataset(settings, None, check=True)
    assert reported.changed
    assert len(reported.missing) == 1
    assert not list(tmp_path.iterdir())


def test_what_a_controller_pushed_is_verified_and_prepared(
    hub: Hub, articles: Model, model: Path, tmp_path: Path
) -> None:
    fetch(NAME, "main", tmp_path / "controller", None, kind=DATASET)
    listing = RepositoryCache(tmp_path / "controller", NAME, DATASET).manifest(articles.commit)
    assert listing is not None
    listing, node = listing.unverified(), RepositoryCache(tmp_path / "node", NAME, DATASET)
    settings = settings_of(model, tmp_path / "node", "main")
    hub.requests.clear()
    reported = fetch_dataset(settings, None, check=True, offline=True, listing=listing)
    file = listing.files[PARQUET]
    assert (reported.changed, reported.missing) == (True, [file.etag])
    node.blobs.mkdir(parents=True)
    node.partial(file).write_bytes(bytes(file.size))
    refused(RunError, settings, "damaged", offline=True, listing=listing)
    node.partial(file).write_bytes(articles.files[PARQUET])
    assert fetch_dataset(settings, None, offline=True, listing=listing).prompts == len(ROWS)
    for check, known in ((False, listing), (True, listing), (False, None)):
        assert not fetch_dataset(settings, None, check=check, offline=True, listing=known).changed
    assert hub.requests == []


def test_a_full_disk_is_reported_in_a_sentence(
    articles: Model, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(model, tmp_path, articles.commit)
    fetch(NAME, articles.commit, tmp_path, None, kind=DATASET)

    def on_a_full_disk(**_: Any) -> tuple[int, str]:
        link = tmp_path / "prepared"
        link.symlink_to("/dev/full")
        return os.open(link, os.O_WRONLY), str(link)

    monkeypatch.setattr("tempfile.mkstemp", on_a_full_disk)
    refused(SetupError, settings, "full", "hf_cache_dir")
    assert not (tmp_path / "prepared").is_symlink()


def test_the_command(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gated = hub.add(f"datasets/{NAME}", small_articles(ROWS), needs_token="hf_right")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--dataset", NAME, "--revision", gated.commit, "--cache-dir", str(tmp_path), "--model", str(model)]
    for more, expected in (["--download-only"], {"files": 1}), ([], {"prompts": len(ROWS), "changed": True}):
        monkeypatch.setattr("sys.stdin", io.StringIO("hf_right\n"))
        assert command.main(parser.parse_args([*words, *more])) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert json.loads(out).items() >= expected.items()
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(InputError, match="benchmark_model"):
        command.main(parser.parse_args([*words, "--model", "no-such-model"]))
    assert not any(b"hf_right" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
