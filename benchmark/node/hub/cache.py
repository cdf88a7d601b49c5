"""The Hugging Face cache on disk: the places of a snapshot's files, whether they are sound, and their links.

Nothing here uses the network.

The layout is huggingface_hub's own, so that transformers and the `hf` program find the files:

    <cache_dir>/hub/models--<org>--<name>/           (datasets--<org>--<name> for a dataset)
        blobs/<etag>               a file's content; its etag is its SHA-256 (LFS files) or its git SHA-1 (the others)
        blobs/<etag>.incomplete    an unfinished download
        snapshots/<commit>/<path>  a relative link to the blob
        refs/<branch or tag>       the commit it pointed to when last looked up
    <cache_dir>/llm-benchmark/models--<org>--<name>/<commit>.json    our own: the snapshot's manifest

The manifest lists the files with size and etag and, for each verified blob, its modification time at that moment. A
blob with the same size and time is not hashed again, and no network is used.
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
    """The contents of a snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    repository: Annotated[str, Field(description="its id at the hub")]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: dict[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files; a file with two names counts once."""
        return sum({file.etag: file.size for file in self.files.values()}.values())

    def unverified(self) -> Manifest:
        """Return the same listing for another cache, where nothing is verified yet."""
        files = {name: file.model_copy(update={"mtime_ns": None}) for name, file in self.files.items()}
        return self.model_copy(update={"files": files})


class RepositoryCache:
    """One repository's directory in a Hugging Face cache."""

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
        """Distinguishes this machine's partial files from those of others, if there is no lock between them."""

    def snapshot(self, commit: str) -> Path:
        """Return the directory to load from."""
        return self.root / "snapshots" / commit

    def blob(self, file: File) -> Path:
        """Return the path of a file's content."""
        return self.blobs / file.etag

    def partial(self, file: File) -> Path:
        """Return the path where a file is downloaded until it is complete and verified."""
        return self.blobs / f"{file.etag}{self.apart}.incomplete"

    def commit_of(self, revision: str) -> str | None:
        """Return the commit of a revision, if the cache knows it."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.root / "refs" / revision).read_text().strip()
        except OSError:
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def manifest(self, commit: str) -> Manifest | None:
        """Return the manifest of an earlier call; a damaged one counts as absent, as it can be made again."""
        try:
            manifest = Manifest.model_validate_json((self.manifests / f"{commit}.json").read_text())
        except (OSError, ValidationError):
            return None
        return manifest if (manifest.repository, manifest.commit) == (self.repository, commit) else None

    def manifest_from_links(self, commit: str) -> Manifest | None:
        """Return a manifest of a snapshot that another program downloaded: its blobs' names are their hashes.

        Raises SetupError if a file needed for loading is absent or cannot be verified.
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
        """Return whether a blob is complete: by its recorded size and time, or else by its hash."""
        return self.vouched(file) or verify(self.blob(file), file)

    def vouched(self, file: File) -> bool:
        """Return whether a blob is unchanged since it was verified."""
        try:
            stat = self.blob(file).stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (file.size, file.mtime_ns)

    def linked(self, manifest: Manifest) -> bool:
        """Return whether every file of the snapshot links to its blob."""
        snapshot = self.snapshot(manifest.commit)
        with suppress(OSError):
            return all((snapshot / name).samefile(self.blob(file)) for name, file in manifest.files.items())
        return False

    def intact(self, manifest: Manifest) -> bool:
        """Return, without reading file contents, whether the snapshot is unchanged since it was verified."""
        return all(self.vouched(file) for file in manifest.files.values()) and self.linked(manifest)

    def adopt(self, file: File) -> bool:
        """Make the downloaded content the blob if its hash is right; otherwise delete it."""
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

        A read-only cache is used without one: it is verified by hash at every call.
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
    """Return whether a file's content matches its etag; if the size is wrong, nothing is read."""
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
        # git's name of a blob, not a security measure: SHA-1 would not be safe for that.
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
