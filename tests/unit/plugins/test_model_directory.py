"""What is said of a model's directory that a user has but may not read, or that is not whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/hf_cache/files/directory.sh"
FILES = ("config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors")
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


def look(directory: Path) -> tuple[int, str]:
    """Run the script as a user who owns none of it."""
    if os.geteuid() != 0:
        pytest.skip("to be somebody else takes root")
    words = ["sh", str(SCRIPT), str(directory)]
    done = subprocess.run(words, user=NOBODY, group=NOBODY, cwd="/", capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def test_a_readable_one_is_taken(model: Path) -> None:
    assert look(model) == (0, str(model))


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
        (lambda m: replace_by_link(m / FILES[2]), "holds model-1.safetensors, a link that leads nowhere"),
        (lambda m: shutil.rmtree(m), "does not exist"),
    ],
)
def test_what_cannot_be_read_is_not_missing(spoil: Callable[[Path], object], said: str, model: Path) -> None:
    spoil(model)
    code, reason = look(model)
    assert code == 1
    assert said in reason
    assert len(reason.splitlines()) == 1
