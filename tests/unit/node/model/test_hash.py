import os
from pathlib import Path

import pytest

from benchmark.node.model import hash as model_hash
from benchmark.node.model.hash import weights_sha256


def test_a_blob_of_the_cache_is_not_read(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / ("ab" * 32)).write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../blobs/" + "ab" * 32)
    before = weights_sha256(snapshot)
    (blobs / ("ab" * 32)).write_text("WEIGHTS")
    assert weights_sha256(snapshot) == before != ""
    (snapshot / "model.safetensors").unlink()
    (blobs / ("cd" * 32)).write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../blobs/" + "cd" * 32)
    assert weights_sha256(snapshot) != before


def test_another_name_size_or_content_is_another_hash(tmp_path: Path) -> None:
    seen = set()
    path = tmp_path / "model.safetensors"
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        seen.add(weights_sha256(tmp_path))
    path.rename(tmp_path / "other.safetensors")
    seen.add(weights_sha256(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    seen.add(weights_sha256(tmp_path))
    assert len(seen) == 5
    (tmp_path / "README.md").write_text("of no matter")
    assert weights_sha256(tmp_path) in seen


def test_of_a_large_file_pieces_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_hash, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(model_hash, "PIECES", 5)
    monkeypatch.setattr(model_hash, "PIECE_BYTES", 100)
    header = 4000
    content = bytearray(header.to_bytes(8, "little") + os.urandom(40_000))
    path = tmp_path / "model.safetensors"

    def hashed(changed: int | None = None) -> str:
        other = bytearray(content)
        if changed is not None:
            other[changed] ^= 1
        path.write_bytes(other)
        return weights_sha256(tmp_path)

    whole = hashed()
    assert hashed() == whole
    assert all(hashed(at) != whole for at in (8, 3999, 0, 10_000, 20_000, len(content) - 1))
    assert hashed(15_000) == whole, "between the pieces nothing is read"
    content += b"\0"
    assert hashed() != whole


def test_without_weights_there_is_no_hash(tmp_path: Path) -> None:
    assert weights_sha256(tmp_path) == ""
