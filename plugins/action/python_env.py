"""Action `python_env`: the virtual environment with the pinned packages and the benchmark's own wheel."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import CHECKOUT, NodeAction, NodeFailure
from wheel_supply import HouseOnController

from benchmark.cluster.wheel import build_wheel
from benchmark.cluster.wheelhouse import on_controller
from benchmark.errors import InputError, SetupError
from benchmark.settings import canonical_sha256

STATE = CHECKOUT / "roles/python_env/files/state.sh"


# What the module runs at most, each with python_env_timeout_s: venv, torch, the other packages, the wheel.
INSTALLATIONS = 4


class ActionModule(NodeAction):
    """Changes nothing where the environment was made from the same things and nobody has changed it since."""

    def act(self) -> dict[str, Any]:
        """Return `changed`, the environment's fingerprint, and the bytes of wheels that were `sent`."""
        directory = str(self.setting("python_env_dir"))
        try:
            wheel = build_wheel(CHECKOUT)
            requirements = (CHECKOUT / str(self.setting("python_env_requirements"))).read_text(encoding="utf-8")
            house = self._wheelhouse()
        except (SetupError, InputError) as error:
            raise NodeFailure(str(error)) from error
        except OSError as error:
            raise NodeFailure(f"python_env_requirements: {error.filename} cannot be read: {error.strerror}.") from error
        wanted = {
            "requirements": requirements,
            "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "python": str(self.setting("python_env_python")),
            "torch_index_url": str(self.setting("python_env_torch_index_url")),
        }
        if house:
            wanted["wheelhouse"] = house.listing.sha256()
        fingerprint = canonical_sha256(wanted)
        if self._is_there(directory, fingerprint):
            return {"changed": False, "fingerprint": fingerprint}
        arguments: dict[str, Any] = {
            "dir": directory,
            "fingerprint": fingerprint,
            "python": wanted["python"],
            "requirements": requirements,
            "torch_index_url": wanted["torch_index_url"],
            "timeout_s": int(self.setting("python_env_timeout_s")),
        }
        supply = house.supply(self, directory, requirements) if house else None
        if self.check_mode:
            return {"changed": True, "fingerprint": fingerprint, "note": "The environment would be made or updated."}
        if supply:
            supply.send(wheel)
            arguments |= {"wheel": f"{supply.ready}/{wheel.name}", "wheels_dir": supply.ready, "locked": supply.locked}
        else:
            arguments["wheel"] = self._push(wheel)
        done = self.module("python_env_install", INSTALLATIONS * arguments["timeout_s"], **arguments)
        told = {"changed": bool(done["changed"]), "fingerprint": fingerprint}
        return told | ({"sent": supply.size} if supply else {})

    def _wheelhouse(self) -> HouseOnController | None:
        given = str(self.setting("python_env_wheelhouse"))
        return HouseOnController(on_controller(CHECKOUT, given)) if given else None

    def _is_there(self, directory: str, fingerprint: str) -> bool:
        script = shlex.quote(STATE.read_text(encoding="utf-8"))
        _, out, _ = self.shell(f"sh -c {script} state {shlex.quote(directory)}")
        lines = out.split()
        # The marker holds the fingerprint and the sum of what was installed then; the last line is the sum now.
        return len(lines) == 3 and lines[0] == fingerprint and lines[1] == lines[2]

    def _push(self, wheel: Path) -> str:
        place = self._make_tmp_path()
        return str(self._transfer_file(str(wheel), self._connection._shell.join_path(place, wheel.name)))
