"""Which weights: a hash that is cheap to take, for telling nodes apart.

A blob of the Hugging Face cache is named by its content's hash, which was verified when it was brought: nothing is
read. In a directory, small files are hashed whole, and of a large one its size, the header of a safetensors file
(names, types, shapes and places of all tensors) and 64 pieces of 64 KiB spread over it: some MB instead of 16 GB. It
finds another model, revision or fine-tuning, but neither a flipped bit nor a forged file.
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
# Headers of safetensors files are as long as their first eight bytes say; longer ones are cut here.
HEADER_BYTES = 16 * 2**20


def weights_sha256(snapshot: Path) -> str:
    """Return the hex SHA-256 of the weights and what else says how to compute with them; empty where there are none.

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
