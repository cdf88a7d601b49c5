"""A model's or dataset's snapshot in the Hugging Face cache, complete and verified."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.hub.cache import COMMIT, File, Manifest, RepositoryCache
from benchmark.node.hub.download import Hub, disk_error
from benchmark.node.hub.files import MODEL, Kind

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")
TOKEN = re.compile(r"[\x21-\x7e]+")
HASHING_THREADS = 4


@dataclass(frozen=True)
class Fetched:
    """The snapshot, and whether this call changed it (with `check`: would change it)."""

    changed: bool
    snapshot: str | None
    """Absolute path; None if it does not exist and its commit could not be looked up."""
    commit: str | None
    bytes: int
    files: int
    missing: list[str] = field(default_factory=list)
    """With `check`: etags of the blobs that are absent or damaged."""
    missing_bytes: int = 0
    """With `check`: their size."""


def fetch(
    repository: str,
    revision: str,
    cache_dir: Path,
    token: str | None,
    *,
    check: bool = False,
    offline: bool = False,
    min_free_gb: float = 0,
    listing: Manifest | None = None,
    kind: Kind = MODEL,
) -> Fetched:
    """Fetch the snapshot of `repository` at `revision` into `cache_dir` (HF_HOME) and verify every file by its hash.

    A pinned commit that was verified before needs no network and reads no contents; a branch or tag is looked up at
    every call. `min_free_gb` is the minimum size of all files together, in GB (1e9 bytes); existing files count.
    `listing` gives the contents of the snapshot if a controller has already asked the hub. With `offline` nothing is
    downloaded; with `check` nothing is changed.

    Raises InputError (unknown model or revision, token refused), SetupError (gated, no network, disk full, missing with
    `offline`) and RunError (interrupted, damaged).
    """
    if not HUB_ID.fullmatch(repository):
        raise InputError(f"{repository!r} is not a hub id such as org/name; a directory needs no fetching.")
    if not REVISION.fullmatch(revision) or ".." in revision:
        raise InputError(f"{revision!r} is not a commit, tag or branch.")
    if token is not None and not TOKEN.fullmatch(token):
        raise InputError("The token has characters that no token can have: set HF_TOKEN (or hf_cache_token) again.")
    cache = RepositoryCache(cache_dir, repository, kind)
    hub = Hub(repository, revision, token, kind)
    try:
        # A branch or tag may have moved: look it up at the hub, unless that is not wanted.
        commit = cache.commit_of(revision) if offline or COMMIT.fullmatch(revision) else None
        known = cache.manifest(commit) if commit else None
        if listing and known and known.unverified() != listing:
            known = None
        if known and cache.intact(known):
            return _fetched(cache, known, changed=False)
        manifest = known or listing or _ask(hub, cache, check=check, offline=offline)
        if manifest is None:
            return Fetched(changed=True, snapshot=None, commit=None, bytes=0, files=0)
        return _complete(cache, hub, manifest, check=check, offline=offline, min_free_gb=min_free_gb)
    except OSError as error:
        raise disk_error(error, cache.hub) from None


def _ask(hub: Hub, cache: RepositoryCache, *, check: bool, offline: bool) -> Manifest | None:
    """Return the contents of the snapshot, from the hub or the cache. None: only with `check`."""
    commit = cache.commit_of(hub.revision)
    if not offline:
        try:
            asked = hub.listing()
            known = cache.manifest(asked.commit)
            # The cache's own manifest of the same commit also records what has been verified.
            return known if known and known.unverified() == asked else asked
        except (SetupError, RunError):
            if not check:
                raise
    found = (cache.manifest(commit) or cache.manifest_from_links(commit)) if commit else None
    if found is None and not check:
        raise SetupError(
            f"{hub.repository} at revision {hub.revision} is not in {cache.hub}: set hf_cache_source to hub or "
            "controller, or put it there."
        )
    return found


def _complete(
    cache: RepositoryCache, hub: Hub, manifest: Manifest, *, check: bool, offline: bool, min_free_gb: float
) -> Fetched:
    cache.kind.require_usable(manifest.files, f"{manifest.repository} at {manifest.commit}")
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        sound = list(pool.map(cache.sound, manifest.files.values()))
    missing = {name: file for (name, file), good in zip(manifest.files.items(), sound, strict=True) if not good}
    if missing and not (offline and not check):
        _require_space(cache, manifest, missing, min_free_gb)
    changed = bool(missing) or not cache.linked(manifest) or cache.commit_of(hub.revision) != manifest.commit
    if check:
        etags = sorted({file.etag for file in missing.values()})
        return _fetched(cache, manifest, changed=changed, missing=etags)
    if missing and offline:
        _adopt_all(cache, missing)
    elif missing:
        hub.download(cache, manifest.commit, missing)
    if changed:
        cache.link(manifest, hub.revision)
    cache.record(manifest)
    return _fetched(cache, manifest, changed=changed)


def _adopt_all(cache: RepositoryCache, missing: dict[str, File]) -> None:
    """Adopt files that a controller put beside the blobs, if they are complete."""
    for name, file in missing.items():
        # Or the same content under another name was just adopted.
        if (cache.partial(file).exists() and cache.adopt(file)) or cache.sound(file):
            continue
        what = "is damaged" if cache.blob(file).exists() else "is missing or arrived damaged"
        raise RunError(
            f"{name} of {cache.repository} {what} in {cache.blobs}: run again with hf_cache_source hub or controller, "
            "which replaces it."
        )


def _require_space(cache: RepositoryCache, manifest: Manifest, missing: dict[str, File], min_free_gb: float) -> None:
    absent = {file.etag: file for file in missing.values()}
    here = manifest.size - sum(file.size for file in absent.values())
    gathered = sum(cache.partial(file).stat().st_size for file in absent.values() if cache.partial(file).exists())
    needed = max(manifest.size, min_free_gb * 1e9) - here - gathered
    place = next(parent for parent in cache.blobs.parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise SetupError(
            f"The files of {manifest.repository} need {needed / 1e9:.1f} GB more, but only {free / 1e9:.1f} GB are "
            f"free at {place}: make room, or set hf_cache_dir to a larger disk (hf_cache_min_free_gb is "
            f"{min_free_gb:g})."
        )


def _fetched(cache: RepositoryCache, manifest: Manifest, *, changed: bool, missing: list[str] | None = None) -> Fetched:
    return Fetched(
        changed=changed,
        snapshot=str(cache.snapshot(manifest.commit)),
        commit=manifest.commit,
        bytes=manifest.size,
        files=len(manifest.files),
        missing=missing or [],
        missing_bytes=sum({f.etag: f.size for f in manifest.files.values() if f.etag in (missing or ())}.values()),
    )
