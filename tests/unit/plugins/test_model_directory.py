"""What is said of a model's directory that a user has but may not read, or that is not whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/hf_cache/files/directory.sh"
FILES = ("config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors")
INDEX = "model.safetensors.index.json"
NOBODY = 65534


@pytest.fixture
def model() -> Iterator[Path]:
    """A directory that others may look into: pytest's own may not."""
    place = Path(tempfile.mkdtemp(prefix="model."))
    place.chmod(0o755)
    directory = place / "parent" / "model"
    directory.mkdir(parents=True)
    for name in FILES:
        (directory / name).write_text("{}")
    yield directory
    shutil.rmtree(place)


def look(directory: Path) -> str:
    """Run the script as a user who owns none of it."""
    if os.geteuid() != 0:
        pytest.skip("to be somebody else takes root")
    words = ["sh", str(SCRIPT), str(directory)]
    done = subprocess.run(words, user=NOBODY, group=NOBODY, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_readable_one_is_taken(model: Path) -> None:
    assert look(model) == f"model_dir\t{model}"


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: (m / FILES[3]).chmod(0o600), "/model-2.safetensors cannot be read by the user nobody: chmod a+r"),
        (lambda m: (m / FILES[0]).chmod(0o600), "/config.json cannot be read by the user nobody"),
        (lambda m: (m / FILES[1]).chmod(0o600), "/tokenizer.json cannot be read by the user nobody"),
        (lambda m: m.chmod(0o700), "/model cannot be read by the user nobody: chmod a+rx"),
        (lambda m: m.chmod(0o711), "/model cannot be read by the user nobody: chmod a+rx"),
        (lambda m: m.parent.chmod(0o700), "/parent cannot be read by the user nobody: chmod a+rx"),
        (lambda m: [path.unlink() for path in m.glob("*.safetensors")], "holds no *.safetensors file"),
        (lambda m: (m / FILES[0]).unlink(), "holds no config.json"),
        (lambda m: (m / FILES[1]).unlink(), "holds no tokenizer (tokenizer.json)"),
        (lambda m: replace_by_link(m / FILES[2]), "holds broken links (model-1.safetensors)"),
        (lambda m: (m / INDEX).write_text(json.dumps({"weight_map": {"a": FILES[2], "b": "3.safetensors"}})), "no 3.s"),
        (lambda m: shutil.rmtree(m), "does not exist"),
    ],
)
def test_what_cannot_be_read_is_not_missing(spoil: Callable[[Path], object], said: str, model: Path) -> None:
    spoil(model)
    reason = look(model)
    assert reason.startswith("model_lacks\t")
    assert said in reason
    assert len(reason.splitlines()) == 1


def test_all_that_is_wrong_is_said_at_once(model: Path) -> None:
    (model / FILES[0]).unlink()
    (model / FILES[1]).unlink()
    (model / FILES[2]).chmod(0)
    replace_by_link(model / FILES[3])
    first, second, third = look(model).splitlines()
    assert "holds no config.json, no tokenizer (tokenizer.json): put" in first
    assert "(model-2.safetensors)" in second
    assert f"{model}/model-1.safetensors cannot be read" in third
