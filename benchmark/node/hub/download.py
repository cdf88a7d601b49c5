"""Requests to the hub over the network, and the errors if it refuses.

This uses huggingface_hub, but not its `snapshot_download`, which since 1.x discards an interrupted download (each call
writes to its own file and removes it). Here every file is downloaded to `<etag>.incomplete` under huggingface_hub's own
lock, is resumed where it stopped, and becomes a blob only if its hash is right.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.errors import BenchmarkError, InputError, RunError, SetupError
from benchmark.locks import take
from benchmark.node.hub.cache import File, Manifest, RepositoryCache
from benchmark.node.hub.files import MODEL, Kind
from benchmark.progress import gigabytes, say
from benchmark.unwritable import FULL
from benchmark.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# One connection seldom fills a fast line; more than this only burdens the hub.
CONNECTIONS = 4
# How often the progress is reported, in seconds.
SHOW_S = 5.0


@dataclass(frozen=True)
class Hub:
    """The hub, for one user. The token is sent in a header and appears in no message."""

    repository: str
    revision: str
    token: str | None = field(repr=False)
    kind: Kind = MODEL

    @property
    def endpoint(self) -> str:
        """The hub's URL: HF_ENDPOINT, or the public one."""
        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def listing(self) -> Manifest:
        """Ask which commit the revision is, and which of its files are needed for loading.

        Raises InputError (unknown model or revision, token refused), SetupError (gated, no network) or RunError.
        """
        hub = huggingface_hub_package()
        with self._reported():
            info = hub.HfApi(endpoint=self.endpoint, token=self.token or False).repo_info(
                self.repository, revision=self.revision, repo_type=self.kind.name, files_metadata=True, timeout=30
            )
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        files = {
            name: File(
                etag=siblings[name].lfs.sha256 if siblings[name].lfs else siblings[name].blob_id,
                size=siblings[name].size,
            )
            for name in self.kind.wanted(siblings)
        }
        return Manifest(repository=self.repository, commit=info.sha, files=files)

    def download(self, cache: RepositoryCache, commit: str, files: dict[str, File]) -> None:
        """Download `files` into the cache and verify each by its hash.

        What an earlier call downloaded is kept. Raises as `listing` does; a file that stays wrong is a RunError.
        """
        with self._reported(cache.hub):
            cache.blobs.mkdir(parents=True, exist_ok=True)
            cache.locks.mkdir(parents=True, exist_ok=True)
            # One name per blob: the same content may occur under two names.
            names = {file.etag: name for name, file in files.items()}
            with _showing(cache, {file.etag: file for file in files.values()}), ThreadPoolExecutor(CONNECTIONS) as pool:
                jobs = [pool.submit(self._bring, cache, commit, name, files[name]) for name in names.values()]
                try:
                    for job in jobs:
                        job.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    def _bring(self, cache: RepositoryCache, commit: str, name: str, file: File) -> None:
        with _locked(cache, file):
            if cache.sound(file):
                return
            resumed = cache.partial(file).exists()
            self._get(cache, commit, name, file)
            if cache.adopt(file):
                return
            if resumed:  # the earlier part may be the damaged one: download all of it again
                self._get(cache, commit, name, file)
                if cache.adopt(file):
                    return
        raise RunError(
            f"{name} of {self.repository} arrived damaged: its hash differs from the one at {self.endpoint}. "
            "Run again; if it happens again, a proxy or the disk alters it."
        )

    def _get(self, cache: RepositoryCache, commit: str, name: str, file: File) -> None:
        hub = huggingface_hub_package()
        partial = cache.partial(file)
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        with partial.open("ab") as gathered:
            hub.file_download.http_get(
                hub.hf_hub_url(
                    self.repository, name, repo_type=self.kind.name, revision=commit, endpoint=self.endpoint
                ),
                gathered,
                resume_size=gathered.tell(),
                # Storage on another host never sees the token: the client drops it on such a redirect.
                headers=hub.utils.build_hf_headers(token=self.token or False, headers={"Accept-Encoding": "identity"}),
                expected_size=file.size,
                displayed_filename=name,
            )

    @contextmanager
    def _reported(self, place: Path | None = None) -> Iterator[None]:
        """Convert huggingface_hub's errors into the project's, without any details of the request."""
        try:
            yield
        except BenchmarkError:
            raise
        except Exception as error:
            reported = self._sentence(error, place)
            if reported is None:
                raise
            raise reported from None

    def _sentence(self, error: Exception, place: Path | None) -> BenchmarkError | None:
        import httpx2
        from huggingface_hub import errors

        what, page = self.repository, f"{self.endpoint}/{self.kind.page(self.repository)}"
        match error:
            case errors.GatedRepoError() if not self.token:
                return SetupError(
                    f"{what} is gated: accept the licence at {page} and set HF_TOKEN (or hf_cache_token) to a "
                    "token of that account."
                )
            case errors.GatedRepoError():
                return SetupError(
                    f"{what} is gated and the token's account has no access: accept the licence at {page} with "
                    "that account, or set HF_TOKEN (or hf_cache_token) to a token of an account that has access."
                )
            case errors.RevisionNotFoundError():
                return InputError(
                    f"{what} has no revision {self.revision}: set {self.kind.revision_setting} to a commit, tag or "
                    f"branch listed at {page}."
                )
            case errors.RepositoryNotFoundError():
                remedy = "the token's account may not see it" if self.token else "it is private and HF_TOKEN is not set"
                return InputError(
                    f"{what} was not found at {self.endpoint}: {self.kind.setting} is misspelt, or {remedy}."
                )
            case errors.HfHubHTTPError():
                return self._refused(error.response.status_code, page)
            case errors.OfflineModeIsEnabled():
                return SetupError(f"HF_HUB_OFFLINE is set on this machine and {what} is not in the cache: unset it.")
            case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError():
                return SetupError(
                    f"{self.endpoint} cannot be reached from this machine: check its network and proxy (HTTPS_PROXY), "
                    "or set hf_cache_source to controller, which needs no internet on the nodes."
                )
            case httpx2.HTTPError() | httpx2.InvalidURL():
                return RunError(
                    f"The connection to {self.endpoint} was lost ({type(error).__name__}): run again to continue the "
                    "download where it stopped."
                )
            case OSError() if error.errno is None:  # http_get: fewer bytes arrived than announced
                return RunError("The download was interrupted: run again to continue where it stopped.")
            case OSError():
                return disk_error(error, place)
            case ValueError() if "too large" in str(error):
                return SetupError(
                    f"{what} has a file over 50 GB, which the hub serves only to hf_xet: put the model into a "
                    "directory on the node and set benchmark_model to it (hf_cache_source: none)."
                )
        return None

    def _refused(self, status: int, page: str) -> BenchmarkError:
        if status == 401:
            return InputError(
                f"{self.endpoint} refuses the token (401): it is mistyped, revoked or expired; create a new one at "
                f"{self.endpoint}/settings/tokens and set HF_TOKEN (or hf_cache_token)."
            )
        if status == 403:
            return SetupError(
                f"The token may not read {self.repository} (403): give it the permission to read gated repositories at "
                f"{self.endpoint}/settings/tokens, and accept the licence at {page}."
            )
        if status == 429:
            return RunError(
                f"{self.endpoint} refuses more requests (429): run again in a few minutes; what was downloaded is "
                "kept. A token (hf_cache_token) raises the limit; with hf_cache_source: controller one machine "
                "downloads for all."
            )
        return RunError(f"{self.endpoint} answers with status {status}: run again later; what was downloaded is kept.")


def disk_error(error: OSError, cache: Path | None) -> BenchmarkError:
    """Return an error, in one sentence, for a failure of the cache's disk."""
    place = error.filename or cache or "the cache"
    if error.errno in FULL:
        return SetupError(
            f"The disk (or quota) is full at {place}: make room or set hf_cache_dir to a larger disk; what was "
            "downloaded is kept."
        )
    return SetupError(f"{place} cannot be used: {error.strerror}: check its owner, or set hf_cache_dir elsewhere.")


@contextmanager
def _showing(cache: RepositoryCache, files: dict[str, File]) -> Iterator[None]:
    """Within the block, print now and then how many bytes and how many complete files have been downloaded."""
    total, over = sum(file.size for file in files.values()), threading.Event()
    count = plural(len(files), "file")
    say(f"{gigabytes(total)} in {count} to download from {cache.repository}")

    def show() -> None:
        while not over.wait(SHOW_S):
            sizes = [_size(cache.blob(file)) or _size(cache.partial(file)) for file in files.values()]
            whole = sum(cache.blob(file).exists() for file in files.values())
            say(f"{gigabytes(sum(sizes))} of {gigabytes(total)} downloaded, {whole} of {count}")

    shows = threading.Thread(target=show, daemon=True)
    shows.start()
    try:
        yield
    finally:
        over.set()
        shows.join()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _locked(cache: RepositoryCache, file: File) -> Iterator[None]:
    """Hold huggingface_hub's own lock: of several processes one downloads, on a shared disk too.

    If the file system has no locks, each machine downloads separately; a blob is always complete.
    """
    with tempfile.TemporaryFile(dir=cache.locks) as tried:
        # Without locks, huggingface_hub would wait forever for a lock file that was left behind.
        if take(tried.fileno()) == "no locks":
            if not cache.apart:
                print(f"{cache.hub} has no file locks: each machine downloads separately.", file=sys.stderr)
            cache.apart = f".{socket.gethostname()}"
    with (
        nullcontext()
        if cache.apart
        else huggingface_hub_package().utils.WeakFileLock(cache.locks / f"{file.etag}.lock")
    ):
        yield


def huggingface_hub_package() -> Any:
    """Return the package, set up before its import, when it reads the environment.

    Only the given token is used, no telemetry is sent, and files are downloaded over plain HTTP: Xet cannot resume a
    file across calls and has a second cache.
    """
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_IMPLICIT_TOKEN="1", HF_HUB_DISABLE_XET="1")  # noqa: S106 # a switch
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub
    import huggingface_hub.file_download
    import huggingface_hub.utils

    # Its warnings contain signed storage URLs; our errors say what matters.
    huggingface_hub.utils.logging.set_verbosity_error()
    return huggingface_hub
