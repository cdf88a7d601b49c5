"""Action `hf_cache`: fetch and verify the model's weights on the node, and the dataset if the profile needs one."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from environment_action import BUSY, code_in, keep_away, made_of, own_wheel
from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.cluster.packages.environments import with_find
from benchmark.errors import SetupError
from benchmark.fleet.programs import await_machine
from benchmark.fleet.session import ANSWER_S
from benchmark.locks import take
from benchmark.node.hub.cache import COMMIT, Manifest, RepositoryCache
from benchmark.node.hub.files import DATASET, MODEL, Kind
from benchmark.progress import PREFIX, gigabytes
from benchmark.settings import Settings
from benchmark.settings.measurement import is_directory_path
from benchmark.words import plural

FILES = CHECKOUT / "roles/hf_cache/files"
NO_ENVIRONMENT = 100  # files/fetch.sh
# Exit codes of coreutils' timeout: the limit has passed; SIGKILL, sent by itself after the limit or by another process.
TIMED_OUT, KILLED = 124, 137
KILLED_BY = 9
# The time limit of a check, in seconds: it recognises verified files by their sizes and times.
LOOK_S = "15"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# Keys that both commands print, among others.
ANSWER = {"changed", "snapshot", "commit", "missing"}
# The result if a run only probes the hardware.
NOTHING = {"changed": False, "snapshot": None, "commit": None}
# The datasets that do not come with the benchmark.
PROVISIONED = ("cnn_dailymail",)


@dataclass(frozen=True)
class Part:
    """A hub repository that the node needs, and the command that fetches it."""

    kind: Kind
    repository: str
    revision: str
    command: str
    options: tuple[str, ...]
    """Options of the command on both the node and the controller."""
    on_node: tuple[str, ...]
    on_controller: tuple[str, ...] = ()


class ActionModule(NodeAction):
    """Changes nothing if everything is there and verified. The token is in no argument, output or file."""

    def questions(self) -> list[str]:
        """Return the commands that check the user's own directory, and whatever the node can check by itself."""
        model = str(self.setting("benchmark_model"))
        directory = [_directory(model)] if is_directory_path(model) and self.profile.needs_model else []
        return directory + [self._look_at(part) for part in self._parts() if self._is_settled(part)]

    def settled(self, answers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the result if the node's answers show that everything is there and verified."""
        model = str(self.setting("benchmark_model"))
        done: dict[str, Any] = {} if self.profile.needs_model else dict(NOTHING)
        if is_directory_path(model) and self.profile.needs_model:
            if (said := answers.get(_directory(model))) is None:
                return None
            if not (own := _own_directory(said)):
                return None
            done = own
        for part in self._parts():
            if not self._is_settled(part) or (seen := self._seen(part, answers)) is None:
                return None
            done |= {"dataset": seen.get("path")} if part.kind is DATASET else _reported(seen)
        return done

    def _parts(self) -> list[Part]:
        if not self.profile.needs_model:
            return []
        parts = [] if is_directory_path(str(self.setting("benchmark_model"))) else [self._model_part()]
        return parts + ([self._dataset_part()] if self._needs_dataset() else [])

    def act(self) -> dict[str, Any]:
        """Return `changed`, the snapshot's directory, its commit (None for the user's own directory), and `dataset`.

        `dataset` is the prepared file, if the profile's dataset is provisioned.
        """
        if not self.profile.needs_model:
            return dict(NOTHING)
        # Read here, since a task's arguments are printed with -vvv. The default is the role's, for a play without it.
        token = str(self.setting("hf_cache_token", os.environ.get("HF_TOKEN")) or "").strip()
        if not self.check_mode:
            keep_away(self)
        try:
            done = self._model(token)
            dataset = self._provide(self._dataset_part(), token) if self._needs_dataset() else None
        except NodeFailure as failure:
            # No known message contains the token; mask it in case one ever does.
            raise NodeFailure(str(failure).replace(token, "***") if token else str(failure)) from None
        if dataset is not None:
            done |= {"changed": done["changed"] or dataset["changed"], "dataset": dataset.get("path")}
        return done

    def _model(self, token: str) -> dict[str, Any]:
        model = str(self.setting("benchmark_model"))
        return self._check_directory(model) if is_directory_path(model) else self._provide(self._model_part(), token)

    def _model_part(self) -> Part:
        model, revision = str(self.setting("benchmark_model")), str(self.setting("benchmark_model_revision"))
        return Part(
            MODEL,
            model,
            revision,
            "fetch-model",
            ("--model", model, "--revision", revision),
            on_node=("--min-free-gb", str(self.setting("hf_cache_min_free_gb"))),
        )

    def _needs_dataset(self) -> bool:
        return self.profile.dataset in PROVISIONED and not self.setting("benchmark_dataset_path")

    def _dataset_part(self) -> Part:
        dataset, revision = self.setting("hf_cache_dataset"), self.setting("hf_cache_dataset_revision")
        model, model_revision = self.setting("benchmark_model"), self.setting("benchmark_model_revision")
        return Part(
            DATASET,
            str(dataset),
            str(revision),
            "fetch-dataset",
            ("--dataset", str(dataset), "--revision", str(revision)),
            on_node=("--model", str(model), "--model-revision", str(model_revision)),
            on_controller=("--download-only",),  # it has no tokenizer
        )

    def _provide(self, part: Part, token: str) -> dict[str, Any]:
        source = str(self.setting("hf_cache_source"))
        done: dict[str, Any] | None
        if source == "controller" and not self.check_mode:
            done = self._push(part, self._on_controller(part, token))
        else:
            words = [] if source == "hub" else ["--offline"]
            done = self._fetch(part, *words, *(["--check"] if self.check_mode else []), stdin=token + "\n")
        where = f"{part.repository} in {self.setting('hf_cache_dir')}"
        if done is None:
            least = (
                f"at least {self.setting('hf_cache_min_free_gb'):g} GB (hf_cache_min_free_gb) "
                if part.kind is MODEL
                else ""
            )
            what = f"verify {where}" if source == "none" else f"fetch or verify {least}of {where}"
            self.would(f"{what}, once the environment is there")
            return {"changed": True}
        if self.check_mode and done["changed"]:
            size = gigabytes(int(done.get("missing_bytes", 0)))
            known = f"{size} in {plural(len(done['missing']), 'file')}" if done["snapshot"] else "what the hub lists"
            self.would(
                f"fetch {known} of {where}" if done["missing"] or not done["snapshot"] else f"verify and link {where}"
            )
        if source == "none" and done["changed"] and (done["snapshot"] is None or done["missing"]):
            raise NodeFailure(
                f"{part.repository} is not complete in {self.setting('hf_cache_dir')} on the node, and hf_cache_source "
                f"is none: set that to hub or controller, or put the {part.kind.name} there."
            )
        return _reported(done)

    def _is_settled(self, part: Part) -> bool:
        """Return whether the node alone can tell that it needs nothing: a branch may have moved at the hub."""
        return bool(COMMIT.fullmatch(part.revision)) or self.setting("hf_cache_source") == "none"

    def _look_at(self, part: Part) -> str:
        """Return the command that checks whether the part is there and verified; it has no time to verify much."""
        # It starts Python, so not while a run measures.
        settings = Settings.model_validate({name: self.setting(name) for name in BUSY})
        return f"{await_machine(settings, wait=False)} && {self._command(part, LOOK_S, '--offline', '--check')}"

    def _seen(self, part: Part, answers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the answer of a check that found everything in order; None otherwise."""
        try:
            seen = _answer(part, 0, answers.get(self._look_at(part), ""), "", "")
        except NodeFailure:
            return None
        return None if seen["changed"] else seen

    def _check_directory(self, model: str) -> dict[str, Any]:
        code, out, err = self.shell(_directory(model))
        if code != 0:
            raise NodeFailure(_last_line(err) or f"{model} could not be checked.")
        if done := _own_directory(out):
            return done
        lacks = [line.partition("\t")[2] for line in out.splitlines() if line.startswith("model_lacks\t")]
        raise NodeFailure("\n".join(lacks) or f"{model} could not be checked.")

    def _fetch(self, part: Part, *options: str, stdin: str) -> dict[str, Any] | None:
        """Run the part's command on the node and return its answer; None with --check if it is not installed."""
        limit = str(self.setting("hf_cache_timeout_s"))
        began = time.monotonic()
        # The play's `environment` (HF_ENDPOINT, HTTPS_PROXY): Ansible itself passes it only to modules.
        command = f"env {self._compute_environment_string()} {self._command(part, limit, *options)}"
        code, out, err = self.shell(command, stdin=stdin, answer_s=float(limit) + ANSWER_S, progress=True)
        if code == KILLED and time.monotonic() - began >= float(limit):
            code = TIMED_OUT
        if code == NO_ENVIRONMENT:
            if self.check_mode:
                return None
            directory = made_of(self, "python_env")[0].directory
            raise NodeFailure(f"There is no Python in {directory} on the node: run the role python_env first.")
        return _answer(part, code, out, err, limit)

    def _command(self, part: Part, limit_s: str, *options: str) -> str:
        script = shlex.quote(with_find((FILES / "fetch.sh").read_text(encoding="utf-8")))
        wanted, fingerprint = made_of(self, "python_env")
        words = [
            wanted.directory,
            fingerprint,
            code_in(own_wheel()),
            limit_s,
            part.command,
            *part.options,
            *part.on_node,
        ]
        words += ["--cache-dir", str(self.setting("hf_cache_dir")), *options]
        return f"sh -c {script} fetch {shlex.join(words)}"

    def _controller_cache(self, part: Part) -> RepositoryCache:
        given = self.setting("hf_cache_controller_dir") or os.environ.get("HF_HOME") or "~/.cache/huggingface"
        return RepositoryCache(Path(given), part.repository, part.kind)

    def _on_controller(self, part: Part, token: str) -> Manifest:
        """Download to the controller, once per playbook run, and return the snapshot's manifest.

        Every fork comes here at the same time: one downloads, and the others use its answer, even if it failed.
        Ansible's temporary directory belongs to this playbook run and goes away with it.
        """
        cache = self._controller_cache(part)
        words = [part.command, *part.options, *part.on_controller, "--cache-dir", str(cache.hub.parent)]
        key = hashlib.sha256(json.dumps([words, bool(token)]).encode()).hexdigest()
        reported = Path(constants.DEFAULT_LOCAL_TMP) / f"hf_cache_{key}.json"
        with reported.with_suffix(".lock").open("w") as lock:
            take(lock.fileno(), wait=True)
            if not reported.exists():
                try:
                    answer = {"commit": self._download(part, words, token)["commit"]}
                except NodeFailure as failure:
                    answer = {"failure": f"On the controller: {failure}"}
                beside = reported.with_suffix(".part")
                beside.write_text(json.dumps(answer))
                beside.replace(reported)
            answer = json.loads(reported.read_text())
        if "failure" in answer:
            raise NodeFailure(answer["failure"])
        try:
            manifest = cache.manifest(answer["commit"]) or cache.manifest_from_links(answer["commit"])
        except SetupError as error:
            raise NodeFailure(f"On the controller: {error}") from None
        if manifest is None:
            raise NodeFailure(f"On the controller: {cache.snapshot(answer['commit'])} has vanished: run again.")
        return manifest.unverified()

    def _download(self, part: Part, words: list[str], token: str) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
        limit = str(self.setting("hf_cache_timeout_s"))
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmark", *words],
                env={**environment, "PYTHONPATH": str(CHECKOUT)},
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            late = threading.Timer(float(limit), process.kill)
            late.start()
            said: deque[str] = deque(maxlen=100)
            try:
                with process:
                    assert process.stdin  # noqa: S101 # a pipe was requested
                    with suppress(BrokenPipeError), process.stdin:
                        process.stdin.write(token + "\n")
                    for line in process.stderr or ():
                        if line.startswith(PREFIX):
                            self.show_progress(f"on the controller: {line.removeprefix(PREFIX).strip()}")
                        else:
                            said.append(line)
            except BaseException:
                process.kill()
                raise
            finally:
                expired = not late.is_alive()
                late.cancel()
            out.seek(0)
            return _answer(part, TIMED_OUT if expired else process.returncode, out.read(), "".join(said), limit)

    def _push(self, part: Part, manifest: Manifest) -> dict[str, Any] | None:
        """Send what the node lacks from the controller's cache, and make the node verify and link it."""
        stdin = "\n" + manifest.model_dump_json()
        found = self._fetch(part, "--offline", "--check", "--listing", stdin=stdin)
        if found is None or not found["changed"]:
            return found
        cache = self._controller_cache(part)
        missing = {f.etag: f for f in manifest.files.values() if f.etag in found["missing"]}
        blobs = posixpath.join(posixpath.dirname(posixpath.dirname(found["snapshot"])), "blobs")
        self._shell_or_fail(f"mkdir -p {shlex.quote(blobs)}")
        total, sent = sum(file.size for file in missing.values()), 0
        for number, (etag, file) in enumerate(sorted(missing.items())):
            self.show_progress(
                f"{gigabytes(sent)} of {gigabytes(total)} sent to the node, {number} of {len(missing)} files"
            )
            sent += file.size
            # Under a name of this node's own: another node with the same home directory may receive the same file.
            beside = posixpath.join(blobs, f"{etag}.{self.node}.incomplete")
            try:
                self._transfer_file(str(cache.blob(file).resolve()), beside)
            except AnsibleConnectionFailure:
                raise
            except AnsibleError as error:
                reason = " ".join(str(error).split())[-200:]
                raise NodeFailure(
                    f"A file of {file.size / 1e9:.1f} GB could not be pushed to {blobs}: is the disk full? {reason}"
                ) from None
            self._shell_or_fail(f"mv -f {shlex.quote(beside)} {shlex.quote(posixpath.join(blobs, etag))}.incomplete")
        return self._fetch(part, "--offline", "--listing", stdin=stdin)

    def _shell_or_fail(self, command: str) -> None:
        code, _, err = self.shell(command)
        if code != 0:
            raise NodeFailure(f"The cache on the node cannot be written: {_last_line(err)}: check hf_cache_dir.")


def _directory(model: str) -> str:
    return shlex.join(["sh", "-c", (FILES / "directory.sh").read_text(encoding="utf-8"), "directory", model])


def _own_directory(said: str) -> dict[str, Any]:
    """Return the task's result if the directory has no problems, else an empty one."""
    name, _, path = said.strip().partition("\t")
    return {"changed": False, "snapshot": path, "commit": None} if name == "model_dir" else {}


def _reported(done: Mapping[str, Any]) -> dict[str, Any]:
    return {name: done[name] for name in ("changed", "snapshot", "commit", "path") if name in done}


def _answer(part: Part, code: int, out: str, err: str, limit: str) -> dict[str, Any]:
    """Return what the part's command printed; raise NodeFailure with its message if it failed."""
    if code == TIMED_OUT:
        raise NodeFailure(
            f"{part.repository} did not arrive within hf_cache_timeout_s = {limit} s: run again to resume the "
            "download, or raise the limit."
        )
    if code in (KILLED, -KILLED_BY):
        raise NodeFailure(
            f"{part.command} was killed (signal {KILLED_BY}) while it fetched or verified {part.repository}: did "
            "memory run out there? See dmesg; then run again to resume the download."
        )
    if code != 0:
        raise NodeFailure(_last_line(err) or _last_line(out) or f"{part.command} ended with exit code {code}.")
    try:
        answer: dict[str, Any] = json.loads(_last_line(out))
        if answer.keys() >= ANSWER:
            return answer
    except (ValueError, AttributeError):
        pass
    raise NodeFailure(f"{part.command} gave an unexpected answer: {_last_line(out)[:200]}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
