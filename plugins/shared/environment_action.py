"""Base of the actions that make a virtual environment on the node: what belongs in it, and whether it is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from existing_environment import ExistingEnvironment
from install_progress import following
from node_action import CHECKOUT, NodeAction, NodeFailure
from reports import show
from wheel_supply import HouseOnController

from benchmark.cluster.packages.environments import Wanted, with_find
from benchmark.cluster.packages.own_wheel import build_wheel
from benchmark.code import wheel_sha256
from benchmark.errors import InputError, SetupError
from benchmark.fleet.programs import await_machine
from benchmark.fleet.session import ANSWER_S
from benchmark.provisioned import ENGINES
from benchmark.settings import Settings
from benchmark.words import plural

STATE = CHECKOUT / "roles/python_env/files/state.sh"
# The module runs at most this many commands, each with the time limit: venv, torch, the other packages, the wheel.
INSTALLATIONS = 4
# Unpacking and compiling our own code takes seconds, even on a slow shared disk.
CODE_S = 300
# The settings for await_machine.sh, and its exit code if another run measures.
BUSY, NOT_ALONE = ("benchmark_busy", "benchmark_shared_machine", "benchmark_sync_timeout_s"), 3
# Cached, since one process may look at many nodes.
_wheel, code_in = cache(build_wheel), cache(wheel_sha256)


def keep_away(action: NodeAction) -> None:
    """Return once no run measures on the node's machine; raise NodeFailure if one does and must not be waited for."""
    settings = Settings.model_validate({name: action.setting(name) for name in BUSY})
    code, said, _ = action.shell(await_machine(settings, wait=False))
    if code == NOT_ALONE and settings.benchmark_busy == "wait":
        show(action.node, f"waiting: {said.strip().removeprefix('Not alone: ').partition(' (')[0]}")
        answer_s = settings.benchmark_sync_timeout_s + ANSWER_S
        code, said, _ = action.shell(await_machine(settings, wait=True), answer_s=answer_s)
    if code == NOT_ALONE:
        raise NodeFailure(f"Nothing was changed. {said.strip()}")


def own_wheel() -> Path:
    """Return the benchmark's own wheel. Raises NodeFailure if it cannot be built."""
    try:
        return _wheel(CHECKOUT)
    except SetupError as error:
        raise NodeFailure(str(error)) from error


def made_of(action: NodeAction, role: str) -> tuple[Wanted, str]:
    """Return the environment that a role needs on the action's node, and its fingerprint."""
    try:
        wanted = Wanted.of(role, action.setting, CHECKOUT)
        return wanted, wanted.fingerprint()
    except InputError as error:
        raise NodeFailure(str(error)) from error
    except OSError as error:
        reported = f"{role}_requirements: {error.filename} cannot be read: {error.strerror}."
        raise NodeFailure(reported) from error


class EnvironmentAction(NodeAction):
    """Changes nothing if the environment has the wanted fingerprint and was not changed since."""

    settings: str
    """The prefix of its settings' names."""

    @property
    def wheel(self) -> Path | None:
        """The wheel with our own code, which is kept separate from the packages; None: there is none."""
        return None

    @property
    def _code(self) -> str:
        return code_in(self.wheel) if self.wheel else ""

    def questions(self) -> list[str]:
        """Return the commands that check whether the environment is there."""
        wanted, fingerprint = made_of(self, self.settings)
        state = _state(wanted.directory, fingerprint, self._code)
        if not wanted.existing:
            return [state]
        return [*([state] if self.wheel else []), self._look(wanted)]

    def settled(self, answers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the result if the environment is there."""
        wanted, fingerprint = made_of(self, self.settings)
        there = self._has_ours(wanted, answers.get(_state(wanted.directory, fingerprint, self._code), ""), fingerprint)
        if there and wanted.existing:
            seen = answers.get(self._look(wanted))
            there = seen is not None and not ExistingEnvironment(self, wanted).problems(0, seen, "")
        return {"changed": False, "fingerprint": fingerprint} if there else None

    def act(self) -> dict[str, Any]:
        """Return `changed`, the environment's `fingerprint`, and the bytes of wheels that were `sent`."""
        wanted, fingerprint = made_of(self, self.settings)
        if wanted.existing:
            keep_away(self)
            existing = ExistingEnvironment(self, wanted)
            if problems := existing.problems(*self.shell(existing.question)):
                raise NodeFailure("\n".join(problems))
        if self._has_ours(wanted, self.shell(_state(wanted.directory, fingerprint, self._code))[1], fingerprint):
            return {"changed": False, "fingerprint": fingerprint}
        if wanted.existing:
            return self._put_code_beside(wanted, fingerprint)
        try:
            supply = HouseOnController(wanted.wheelhouse).supply(self, wanted) if wanted.wheelhouse else None
        except InputError as error:
            raise NodeFailure(str(error)) from error
        if self.check_mode:
            found = (
                f"{supply.size / 1e9:.1f} GB in {plural(len(supply.files), 'wheel')}, sent"
                if supply
                else self._size(wanted)
            )
            self.would(f"make or update the environment {wanted.directory}: {found}")
            return {"changed": True, "fingerprint": fingerprint}
        keep_away(self)
        arguments: dict[str, Any] = {
            "dir": wanted.directory,
            "fingerprint": fingerprint,
            "python": wanted.python,
            "requirements": wanted.requirements,
            "torch_index_url": wanted.torch_index_url,
            "package": ENGINES[self.settings].package if self.settings in ENGINES else "",
            "timeout_s": int(self.setting(f"{self.settings}_timeout_s")),
            "settings": self.settings,
        }
        if supply:
            self.show_progress(f"sending {len(supply.files)} wheels, {supply.size / 1e9:.1f} GB")
            supply.send(*([self.wheel] if self.wheel else []))
            arguments |= {"wheels_dir": supply.ready, "locked": supply.locked}
        if self.wheel:
            arguments["wheel"] = f"{supply.ready}/{self.wheel.name}" if supply else self._push(self.wheel)
            arguments["code_sha256"] = self._code
        self.show_progress(f"installing {self._size(wanted)}")
        with following(self.way, wanted.directory, self.show_progress):
            done = self.module("python_env_install", INSTALLATIONS * arguments["timeout_s"], **arguments)
        result: dict[str, Any] = {"changed": bool(done["changed"]), "fingerprint": fingerprint}
        return result | ({"sent": supply.size} if supply else {})

    def _put_code_beside(self, wanted: Wanted, fingerprint: str) -> dict[str, Any]:
        """Put the benchmark's own code beside an existing environment, which stays unchanged."""
        if self.check_mode:
            self.would(f"put the benchmark's own code into {wanted.directory}, for the environment {wanted.existing}")
        elif self.wheel:
            # The module must leave no compiled files in that environment.
            self._task.environment = [*(self._task.environment or []), {"PYTHONDONTWRITEBYTECODE": "1"}]
            self.module(
                "python_env_install",
                CODE_S,
                dir=wanted.directory,
                fingerprint=fingerprint,
                python=wanted.python,
                existing=True,
                wheel=self._push(self.wheel),
                code_sha256=self._code,
                timeout_s=CODE_S,
                settings="python_env_code",
            )
        return {"changed": True, "fingerprint": fingerprint}

    def _look(self, wanted: Wanted) -> str:
        """Return the command that examines an existing environment, but not while a run measures."""
        settings = Settings.model_validate({name: self.setting(name) for name in BUSY})
        return f"{await_machine(settings, wait=False)} && {ExistingEnvironment(self, wanted).question}"

    def _has_ours(self, wanted: Wanted, state: str, fingerprint: str) -> bool:
        """Return whether the role's files are on the node; for an engine's existing environment it has none."""
        return bool(wanted.existing and not self.wheel) or self._is_there(state, fingerprint)

    def _is_there(self, state: str, fingerprint: str) -> bool:
        """Return whether environment and code are the wanted ones and unchanged, from the answer of state.sh."""
        # For each: its fingerprint, the checksum of what was installed then, and the checksum now.
        wanted, lines = [fingerprint, *([self._code] if self.wheel else [])], state.split()
        return lines[0::3] == wanted and len(lines) == 3 * len(wanted) and lines[1::3] == lines[2::3]

    def _size(self, wanted: Wanted) -> str:
        names = set(re.findall(r"^[A-Za-z0-9][\w.-]*", wanted.requirements, re.MULTILINE))
        setting = f"{self.settings}_min_free_gb"
        needed = f"{float(self.setting(setting)):g} GB of disk ({setting})"
        return f"{plural(len(names), 'pinned package')} and their dependencies, up to {needed}"

    def _push(self, wheel: Path) -> str:
        place = self._make_tmp_path()
        return str(self._transfer_file(str(wheel), self._connection._shell.join_path(place, wheel.name)))


def _state(directory: str, fingerprint: str, code_sha256: str) -> str:
    script = with_find(STATE.read_text(encoding="utf-8"))
    return shlex.join(["sh", "-c", script, "state", directory, fingerprint, code_sha256])
