"""What the actions that make a virtual environment on the node share: what it is of, and whether it is there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from node_action import CHECKOUT, NodeAction, NodeFailure
from wheel_supply import HouseOnController, Wanted

from benchmark.cluster.packages.wheelhouse import on_controller
from benchmark.errors import InputError, SetupError
from benchmark.files import file_sha256
from benchmark.settings import canonical_sha256

STATE = CHECKOUT / "roles/python_env/files/state.sh"
# What the module runs at most, each with the time limit: venv, torch, the other packages, the wheel.
INSTALLATIONS = 4
# One process may look at many nodes.
_sha256 = cache(file_sha256)


class EnvironmentAction(NodeAction):
    """Changes nothing where the environment was made from the same things and nobody has changed it since."""

    settings: str
    """What the names of its settings begin with."""

    @property
    def python(self) -> str:
        """The interpreter that the environment is made from."""
        return str(self._own("python"))

    @property
    def torch_index_url(self) -> str:
        """The package index of torch builds; empty: the node's usual one."""
        return ""

    @cached_property
    def wheel(self) -> Path | None:
        """The wheel that is installed beside the packages. Raises SetupError where it cannot be built."""
        return None

    def questions(self) -> list[str]:
        """Return the command that tells whether the environment is there."""
        return [_state(str(self._own("dir")))]

    def settled(self, answers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return that the environment is there."""
        wanted, _, fingerprint = self._fingerprint()
        there = _is_of(answers.get(_state(wanted.directory), ""), fingerprint)
        return {"changed": False, "fingerprint": fingerprint} if there else None

    def act(self) -> dict[str, Any]:
        """Return `changed`, the environment's fingerprint, and the bytes of wheels that were `sent`."""
        wanted, house, fingerprint = self._fingerprint()
        if _is_of(self.shell(_state(wanted.directory))[1], fingerprint):
            return {"changed": False, "fingerprint": fingerprint}
        supply = house.supply(self, wanted) if house else None
        if self.check_mode:
            return {"changed": True, "fingerprint": fingerprint, "note": "The environment would be made or updated."}
        arguments: dict[str, Any] = {
            "dir": wanted.directory,
            "fingerprint": fingerprint,
            "python": wanted.python,
            "requirements": wanted.requirements,
            "torch_index_url": self.torch_index_url,
            "timeout_s": int(self._own("timeout_s")),
            "settings": self.settings,
        }
        if supply:
            supply.send(*([self.wheel] if self.wheel else []))
            arguments |= {"wheels_dir": supply.ready, "locked": supply.locked}
        if self.wheel:
            arguments["wheel"] = f"{supply.ready}/{self.wheel.name}" if supply else self._push(self.wheel)
        done = self.module("python_env_install", INSTALLATIONS * arguments["timeout_s"], **arguments)
        result: dict[str, Any] = {"changed": bool(done["changed"]), "fingerprint": fingerprint}
        return result | ({"sent": supply.size} if supply else {})

    def _fingerprint(self) -> tuple[Wanted, HouseOnController | None, str]:
        """Return what is wanted, the wheelhouse that it comes from, and the fingerprint of both."""
        try:
            wanted = self._wanted()
            house = self._wheelhouse()
            made_of = self._made_of(wanted)
        except (SetupError, InputError) as error:
            raise NodeFailure(str(error)) from error
        except OSError as error:
            reported = f"{self.settings}_requirements: {error.filename} cannot be read: {error.strerror}."
            raise NodeFailure(reported) from error
        if house:
            made_of["wheelhouse"] = house.listing.sha256()
        return wanted, house, canonical_sha256(made_of)

    def _own(self, name: str) -> Any:
        return self.setting(f"{self.settings}_{name}")

    def _wanted(self) -> Wanted:
        file = str(self._own("requirements"))
        text = (CHECKOUT / Path(file).expanduser()).read_text(encoding="utf-8")
        return Wanted(self.settings, str(self._own("dir")), self.python, text, file)

    def _made_of(self, wanted: Wanted) -> dict[str, str]:
        """Return what a change of makes another environment."""
        return {
            "requirements": wanted.requirements,
            "python": wanted.python,
            "torch_index_url": self.torch_index_url,
            "wheel_sha256": _sha256(self.wheel) if self.wheel else "",
        }

    def _wheelhouse(self) -> HouseOnController | None:
        given = str(self._own("wheelhouse"))
        return HouseOnController(on_controller(CHECKOUT, given)) if given else None

    def _push(self, wheel: Path) -> str:
        place = self._make_tmp_path()
        return str(self._transfer_file(str(wheel), self._connection._shell.join_path(place, wheel.name)))


def _state(directory: str) -> str:
    return shlex.join(["sh", "-c", STATE.read_text(encoding="utf-8"), "state", directory])


def _is_of(state: str, fingerprint: str) -> bool:
    """Return whether an environment was made with the fingerprint and is unchanged, by what state.sh printed."""
    lines = state.split()
    # The marker holds the fingerprint and the sum of what was installed then; the last line is the sum now.
    return len(lines) == 3 and lines[0] == fingerprint and lines[1] == lines[2]
