"""A quick hash of the weights, to tell models on different nodes apart.

A blob of the Hugging Face cache is named by its content's hash, which was verified when it was downloaded: nothing is
read. In other directories, small files are hashed whole; of a large file its size, the header of a safetensors file
(names, types, shapes and offsets of all tensors) and 64 pieces of 64 KiB spread over it: a few MB instead of 16 GB. It
detects a different model, revision or fine-tuning, but neither a flipped bit nor a forged file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

FILES = ("*.safetensors", "config.json", "generation_config.json")
# An etag of the hub: SHA-256 (LFS files) or git's SHA-1.
BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
WHOLE_BYTES = 32 * 2**20
PIECES = 64
PIECE_BYTES = 64 * 2**10
# The first eight bytes of a safetensors file give the length of its header; longer headers are cut here.
HEADER_BYTES = 16 * 2**20


def weights_sha256(snapshot: Path) -> str:
    """Return the hex SHA-256 of the weights and of all files that affect their use; empty if there are none.

    Raises OSError for a file that cannot be read.
    """
    names = sorted(path.name for pattern in FILES for path in snapshot.glob(pattern) if path.is_file())
    contents = [(name, _content(snapshot / name)) for name in names]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest() if contents else ""


def _content(path: Path) -> str:
    if path.is_symlink() and BLOB.fullmatch(blob := path.readlink().name):
        return blob
    size = path.stat().st_size
    digest = hashlib.sha256(b"%d\0" % size)
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
        else:
            header = int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else 0
            digest.update(file.read(min(header, HEADER_BYTES)))
            for piece in range(PIECES):
                file.seek((size - PIECE_BYTES) * piece // (PIECES - 1))
                digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()
