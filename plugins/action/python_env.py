"""Action `python_env`: the virtual environment with the pinned packages and the benchmark's own wheel."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.cluster.wheel import build_wheel
from benchmark.errors import SetupError
from benchmark.settings import canonical_sha256

STATE = CHECKOUT / "roles/python_env/files/state.sh"


class ActionModule(NodeAction):
    """Changes nothing where the environment was made from the same things and nobody has changed it since."""

    def act(self) -> dict[str, Any]:
        """Return `changed` and the environment's fingerprint."""
        directory = str(self.setting("python_env_dir"))
        try:
            wheel = build_wheel(CHECKOUT)
            requirements = (CHECKOUT / str(self.setting("python_env_requirements"))).read_text(encoding="utf-8")
        except SetupError as error:
            raise NodeFailure(str(error)) from error
        except OSError as error:
            raise NodeFailure(f"python_env_requirements: {error.filename} cannot be read: {error.strerror}.") from error
        wanted = {
            "requirements": requirements,
            "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "python": str(self.setting("python_env_python")),
            "torch_index_url": str(self.setting("python_env_torch_index_url")),
        }
        fingerprint = canonical_sha256(wanted)
        if self._is_there(directory, fingerprint):
            return {"changed": False, "fingerprint": fingerprint}
        if self.check_mode:
            return {"changed": True, "fingerprint": fingerprint, "note": "The environment would be made or updated."}
        done = self.module(
            "python_env_install",
            dir=directory,
            fingerprint=fingerprint,
            python=wanted["python"],
            requirements=requirements,
            torch_index_url=wanted["torch_index_url"],
            wheel=self._push(wheel),
            timeout_s=int(self.setting("python_env_timeout_s")),
        )
        return {"changed": bool(done["changed"]), "fingerprint": fingerprint}

    def _is_there(self, directory: str, fingerprint: str) -> bool:
        script = shlex.quote(STATE.read_text(encoding="utf-8"))
        _, out, _ = self.shell(f"sh -c {script} state {shlex.quote(directory)}")
        lines = out.split()
        # The marker holds the fingerprint and the sum of what was installed then; the last line is the sum now.
        return len(lines) == 3 and lines[0] == fingerprint and lines[1] == lines[2]

    def _push(self, wheel: Path) -> str:
        place = self._make_tmp_path()
        return str(self._transfer_file(str(wheel), self._connection._shell.join_path(place, wheel.name)))
