"""A stand-in for the hub's HTTP interface, as huggingface_hub 2.4.0 uses it, on a loopback address.

Like the hub it answers for models (`/api/models/...`) and datasets (`/api/datasets/...`), redirects large files to
storage on another origin, serves ranges, and refuses with status and `X-Error-Code`. It can misbehave on request, and
it keeps what it was asked.

    with Hub() as hub:
        hub.add("org/model", small_model())
        hub.add("datasets/org/name", {"3.0.0/validation-00000-of-00001.parquet": ...})
        ... HF_ENDPOINT=hub.url ...
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = ("*.safetensors", "*.parquet")


@dataclass
class Model:
    """One repository with one commit."""

    files: dict[str, bytes]
    commit: str
    branches: tuple[str, ...] = ("main",)
    needs_token: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes to declare in place of the true ones."""

    def entry(self, path: str) -> dict[str, Any]:
        """Return a file's metadata as the tree lists it."""
        content = self.files[path]
        size = self.sizes.get(path, len(content))
        entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": git_sha1(content)}
        if any(fnmatchcase(path, pattern) for pattern in LFS):
            entry["lfs"] = {"oid": sha256(content), "size": size, "pointerSize": 130}
        return entry

    def sibling(self, path: str) -> dict[str, Any]:
        """Return a file's metadata as the model's information lists it."""
        entry = self.entry(path)
        sibling = {"rfilename": path, "size": entry["size"], "blobId": entry["oid"]}
        if "lfs" in entry:
            sibling["lfs"] = {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 130}
        return sibling


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    range: str | None
    authorised: bool
    to_storage: bool


class Hub:
    """The hub and its storage, two origins on one loopback address."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.models: dict[str, Model] = {}
        self.tokens: set[str] = set()
        self.requests: list[Request] = []
        self.cut_after: int | None = None
        """Bytes after which the next transfer of a large file that is longer is cut."""
        self.cuts = 1
        """How many transfers are cut so."""
        self.refuse_with: int | None = None
        """The status with which everything is refused."""
        self.down_after_cut = False
        """Whether the hub then answers 503 until this is set back."""
        self.damaged: set[str] = set()
        """Paths whose content is sent with a byte changed."""
        self.while_sending: Callable[[], None] = lambda: None
        """Called in the middle of every large file's transfer."""
        self._down = False
        self._lock = threading.Lock()
        self._servers = [_Server((address, 0), self), _Server((address, 0), self)]
        self.url, self.storage_url = (f"http://{address}:{server.server_port}" for server in self._servers)

    def __enter__(self) -> Hub:
        self._threads = [
            threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.05}) for s in self._servers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def add(self, model: str, files: dict[str, bytes], *, needs_token: str | None = None) -> Model:
        """Publish a repository; its commit follows from its content. A dataset's name begins with `datasets/`."""
        digest = hashlib.sha1(b"".join(name.encode() + content for name, content in sorted(files.items())))
        made = Model(dict(files), digest.hexdigest(), needs_token=needs_token)
        self.models[model] = made
        if needs_token:
            self.tokens.add(needs_token)
        return made

    def downloads(self) -> list[Request]:
        """Return the requests that brought content."""
        with self._lock:
            return [r for r in self.requests if r.method == "GET" and (r.to_storage or "/resolve/" in r.path)]

    def recover(self) -> None:
        """End the outage that followed a cut."""
        self.down_after_cut = self._down = False
        self.cut_after = self.refuse_with = None

    # What follows is for the handler.

    def note(self, request: Request) -> None:
        """Keep a request."""
        with self._lock:
            self.requests.append(request)

    @property
    def down(self) -> bool:
        """Whether every request is answered with 503."""
        return self._down

    def take_cut(self, length: int) -> int | None:
        """Return after how many bytes a transfer of `length` is cut; only so many are."""
        with self._lock:
            if self.cut_after is None or length <= self.cut_after:
                return None
            cut, self.cuts = self.cut_after, self.cuts - 1
            if not self.cuts:
                self.cut_after = None
            self._down = self.down_after_cut
            return cut

    def content(self, digest: str) -> tuple[str, bytes] | None:
        """Return path and content of the large file with this SHA-256."""
        for model in self.models.values():
            for path, content in model.files.items():
                if sha256(content) == digest:
                    return path, content
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        super().__init__(address, _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:  # the name that http.server calls
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing: tests read `requests`."""

    def _answer(self) -> None:
        hub = self.server.hub
        url = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        to_storage = f":{self.server.server_port}" == hub.storage_url[-len(str(self.server.server_port)) - 1 :]
        hub.note(Request(self.command, url.path, self.headers.get("Range"), token in hub.tokens, to_storage))
        if hub.refuse_with is not None:
            return self._refuse(hub.refuse_with, None, "Refused")
        if hub.down:
            return self._refuse(503, None, "Service Unavailable")
        if to_storage:
            return self._store(url.path, token)
        if token and token not in hub.tokens:
            return self._refuse(401, None, "Invalid credentials in Authorization header")
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", url.path)
        if api:
            name = api[2] if api[1] == "models" else f"datasets/{api[2]}"
            return self._api(name, api[3], unquote(api[4] or "main"), parse_qs(url.query))
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path):
            return self._resolve(match[1], unquote(match[2]), unquote(match[3]), token)
        return self._refuse(404, None, "Not found")

    def _model(self, name: str, revision: str) -> Model | None:
        model = self.server.hub.models.get(name)
        if model is None:
            # Like the hub: without a token one is not told whether it is missing or private.
            self._refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound", "Repository not found")
        elif revision not in (*model.branches, model.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return model

    def _api(self, name: str, what: str | None, revision: str, query: dict[str, list[str]]) -> None:
        model = self._model(name, revision)
        if model is None:
            return
        answer: Any
        if what == "tree":
            answer = [model.entry(path) for path in sorted(model.files)]
        else:
            blobs = query.get("blobs", ["false"])[0].lower() == "true"
            siblings = [model.sibling(p) if blobs else {"rfilename": p} for p in sorted(model.files)]
            answer = {
                "id": name.removeprefix("datasets/"),
                "sha": model.commit,
                "siblings": siblings,
                "private": False,
                "gated": "manual" if model.needs_token else False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str, token: str | None) -> None:
        model = self._model(name, revision)
        if model is None:
            return None
        if path not in model.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        if model.needs_token and token != model.needs_token:
            return self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        entry = model.entry(path)
        headers = {"X-Repo-Commit": model.commit}
        if "lfs" in entry:
            digest = entry["lfs"]["oid"]
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(entry["size"])}
            return self._send(302, b"", headers | {"Location": f"{self.server.hub.storage_url}/{digest}"})
        return self._content(path, model.files[path], headers | {"ETag": f'"{entry["oid"]}"'})

    def _store(self, path: str, token: str | None) -> None:
        if token:  # as signed storage addresses do
            return self._refuse(400, None, "Only one auth mechanism allowed")
        found = self.server.hub.content(path.strip("/"))
        if found is None:
            return self._refuse(404, None, "Not found")
        return self._content(*found, {"ETag": f'"{path.strip("/")}"'}, large=True)

    def _content(self, path: str, content: bytes, headers: dict[str, str], *, large: bool = False) -> None:
        hub = self.server.hub
        if path in hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        status, start = 200, 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(match[1])
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        cut = hub.take_cut(len(body)) if large and self.command == "GET" else None
        self._head(status, len(body), headers)
        if self.command == "HEAD":
            return
        if not large:
            self.wfile.write(body)
            return
        middle = len(body) // 2 if cut is None else cut
        self.wfile.write(body[:middle])
        hub.while_sending()
        if cut is None:
            self.wfile.write(body[middle:])
        else:
            self.close_connection = True

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


def sha256(content: bytes) -> str:
    """Return the name that LFS gives a file."""
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    """Return the name that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def small_articles(rows: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Return files of a made-up CNN/DailyMail: its validation split in Parquet, with what must not be downloaded."""
    import pyarrow
    from pyarrow import parquet

    columns = {
        "article": [article for article, _ in rows],
        "highlights": [summary for _, summary in rows],
        "id": [f"{number:040x}" for number in range(len(rows))],
    }
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content, row_group_size=2)
    return {
        "3.0.0/validation-00000-of-00001.parquet": content.getvalue(),
        "3.0.0/test-00000-of-00001.parquet": b"another split",
        "1.0.0/validation-00000-of-00001.parquet": b"another configuration",
        "README.md": b"# Articles",
    }


def small_model(weights: int = 1000) -> dict[str, bytes]:
    """Return files of a made-up model in two shards of `weights` bytes each, with what must not be downloaded."""
    shards = {f"model-0000{n}-of-00002.safetensors": random.Random(n).randbytes(weights) for n in (1, 2)}
    index = {"metadata": {}, "weight_map": {f"layer.{n}": name for n, name in enumerate(shards)}}
    return {
        **shards,
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": b'{"model_type": "llama"}',
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"# A model",
        "pytorch_model.bin": b"pickled",
        "original/consolidated.00.pth": b"pickled",
        "original/params.json": b"{}",
    }
