"""The Hugging Face cache on disk: where a snapshot's files lie, whether they are sound, how they are linked.

Nothing here uses the network.

The layout is huggingface_hub's own, so that transformers and the `hf` program find what lies here:

    <cache_dir>/hub/models--<org>--<name>/           (datasets--<org>--<name> for a dataset)
        blobs/<etag>               a file's content; its etag is its SHA-256 (LFS files) or its git SHA-1 (the others)
        blobs/<etag>.incomplete    what a download has brought so far
        snapshots/<commit>/<path>  a relative link to the blob
        refs/<branch or tag>       the commit that it meant when it was last asked for
    <cache_dir>/llm-benchmark/models--<org>--<name>/<commit>.json    our own: the snapshot's manifest

The manifest lists the files with size and etag and, for each blob that was verified, the modification time that it had
then. A blob with the same size and time is not hashed again, and the network is not asked.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.errors import SetupError
from benchmark.files import write_atomic
from benchmark.node.hub.files import MODEL, Kind

COMMIT = re.compile(r"[0-9a-f]{40}")
HASH_CHUNK = 8 * 2**20
SHA256_DIGITS = 64
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class File(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    etag: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$", description="name of the blob: its hash")]
    size: Annotated[int, Field(ge=0, description="bytes")]
    mtime_ns: Annotated[int | None, Field(description="of the blob when it was verified; null: not verified here")] = (
        None
    )


class Manifest(BaseModel):
    """What a snapshot consists of."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    repository: Annotated[str, Field(description="its id at the hub")]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: dict[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files; one that occurs under two names counts once."""
        return sum({file.etag: file.size for file in self.files.values()}.values())

    def unverified(self) -> Manifest:
        """Return the same listing for another cache, where nothing has been verified yet."""
        files = {name: file.model_copy(update={"mtime_ns": None}) for name, file in self.files.items()}
        return self.model_copy(update={"files": files})


class RepositoryCache:
    """One repository's place in a Hugging Face cache."""

    def __init__(self, cache_dir: Path, repository: str, kind: Kind = MODEL) -> None:
        self.repository = repository
        self.kind = kind
        folder = kind.folder(repository)
        self.hub = cache_dir.expanduser().resolve() / "hub"
        self.root = self.hub / folder
        self.blobs = self.root / "blobs"
        self.locks = self.hub / ".locks" / folder
        self.manifests = self.hub.parent / "llm-benchmark" / folder
        self.apart = ""
        """What tells this machine's partial files from another's, where no lock keeps the two from each other."""

    def snapshot(self, commit: str) -> Path:
        """Return the directory that a loader is given."""
        return self.root / "snapshots" / commit

    def blob(self, file: File) -> Path:
        """Return where a file's content lies."""
        return self.blobs / file.etag

    def partial(self, file: File) -> Path:
        """Return where a file's content is gathered until it is whole and verified."""
        return self.blobs / f"{file.etag}{self.apart}.incomplete"

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that a revision means as far as the cache knows."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.root / "refs" / revision).read_text().strip()
        except OSError:
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def manifest(self, commit: str) -> Manifest | None:
        """Return the manifest that an earlier call left; a damaged one counts as absent: it can be made again."""
        try:
            manifest = Manifest.model_validate_json((self.manifests / f"{commit}.json").read_text())
        except (OSError, ValidationError):
            return None
        return manifest if (manifest.repository, manifest.commit) == (self.repository, commit) else None

    def manifest_from_links(self, commit: str) -> Manifest | None:
        """Return a manifest of a snapshot that somebody else brought: its blobs' names are their hashes.

        Raises SetupError where a file that loading needs is absent or cannot be verified.
        """
        snapshot = self.snapshot(commit)
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if not path.is_dir()]
        if not names:
            return None
        files = {}
        for name in self.kind.wanted(names):
            path = snapshot / name
            try:
                etag = path.readlink().name
                files[name] = File(etag=etag, size=path.stat().st_size)
            except (OSError, ValidationError):
                raise SetupError(
                    f"{path} is not a link to a blob of the cache, so it cannot be verified: remove {snapshot} and "
                    "run with hf_cache_source hub or controller."
                ) from None
        for shard in self._shards(snapshot):
            if shard not in files:
                raise SetupError(f"{snapshot} is incomplete: {shard} is missing; run with hf_cache_source hub.")
        return Manifest(repository=self.repository, commit=commit, files=files)

    def sound(self, file: File) -> bool:
        """Return whether a blob is whole: vouched for by size and time, or by its hash."""
        return self.vouched(file) or verify(self.blob(file), file)

    def vouched(self, file: File) -> bool:
        """Return whether a blob is as it was when it was verified."""
        try:
            stat = self.blob(file).stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (file.size, file.mtime_ns)

    def linked(self, manifest: Manifest) -> bool:
        """Return whether every file of the snapshot leads to its blob."""
        snapshot = self.snapshot(manifest.commit)
        with suppress(OSError):
            return all((snapshot / name).samefile(self.blob(file)) for name, file in manifest.files.items())
        return False

    def intact(self, manifest: Manifest) -> bool:
        """Tell, without reading any content, whether the snapshot is as it was verified."""
        return all(self.vouched(file) for file in manifest.files.values()) and self.linked(manifest)

    def adopt(self, file: File) -> bool:
        """Make the gathered content the blob if it is what its hash says; otherwise throw it away."""
        partial = self.partial(file)
        if not verify(partial, file):
            partial.unlink(missing_ok=True)
            return False
        with partial.open("rb+") as content:
            os.fsync(content.fileno())
        partial.replace(self.blob(file))
        return True

    def link(self, manifest: Manifest, revision: str) -> None:
        """Make the snapshot's links and the branch's or tag's reference; a reader sees the old ones or the new."""
        snapshot = self.snapshot(manifest.commit)
        for name, file in manifest.files.items():
            path = snapshot / name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            beside.symlink_to(os.path.relpath(self.blob(file), path.parent))
            beside.replace(path)
        if revision != manifest.commit:
            reference = self.root / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(reference, manifest.commit)

    def record(self, manifest: Manifest) -> None:
        """Write the manifest with the times of the blobs, all of which have just been verified.

        A cache that may only be read is used as it is: it is verified by hash at every call.
        """
        times = {name: self.blob(file).stat().st_mtime_ns for name, file in manifest.files.items()}
        files = {n: file.model_copy(update={"mtime_ns": times[n]}) for n, file in manifest.files.items()}
        text = manifest.model_copy(update={"files": files}).model_dump_json(indent=1)
        try:
            self.manifests.mkdir(parents=True, exist_ok=True)
            write_atomic(self.manifests / f"{manifest.commit}.json", text + "\n")
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise

    def _shards(self, snapshot: Path) -> set[str]:
        try:
            index = json.loads((snapshot / "model.safetensors.index.json").read_text())
            return {str(shard) for shard in index["weight_map"].values()}
        except (OSError, ValueError, KeyError, AttributeError):
            return set()


def verify(path: Path, file: File) -> bool:
    """Return whether a file's content is what its etag says; nothing is read where the size is wrong already."""
    try:
        if path.stat().st_size != file.size:
            return False
        return _hash(path, file) == file.etag
    except OSError:
        return False


def _hash(path: Path, file: File) -> str:
    if len(file.etag) == SHA256_DIGITS:
        digest = hashlib.sha256()
    else:
        # git's name of a blob: not for security, which is what SHA-1 would no longer be good for.
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
