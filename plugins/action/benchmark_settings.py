"""Action `benchmark_settings`: the controller's own checks, before any node is touched."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import release
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import resolve_play

from benchmark.cluster.wheelhouse import on_controller, require_pins
from benchmark.errors import InputError
from benchmark.settings import Settings

OLDEST, BELOW = (2, 19), (2, 22)


class ActionModule(NodeAction):
    """Raises NodeFailure with every problem: ansible-core's version, names, types and ranges, unknown profiles."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return the profile that each node will run."""
        version = tuple(int(part) for part in release.__version__.split(".")[:2])
        if not OLDEST <= version < BELOW:
            raise NodeFailure(
                f"ansible-core is {release.__version__}; {'.'.join(map(str, OLDEST))} or newer and below "
                f"{'.'.join(map(str, BELOW))} is needed: install requirements.txt."
            )
        resolved = resolve_play(self.task_vars, self._loader).resolved
        self._check_wheelhouses(r.settings for r in resolved.values())
        return {"changed": False, "profiles": sorted({r.profile.name for r in resolved.values()})}

    def _check_wheelhouses(self, nodes: Iterable[Settings]) -> None:
        """Refuse a wheelhouse that is not there, or that lacks a package which is pinned."""
        for given, pins in sorted({(s.python_env_wheelhouse, s.python_env_requirements) for s in nodes}):
            if not given:
                continue
            try:
                require_pins(on_controller(CHECKOUT, given), (CHECKOUT / pins).read_text(encoding="utf-8"))
            except InputError as error:
                raise NodeFailure(str(error)) from error
            except OSError as error:
                raise NodeFailure(f"python_env_requirements: {CHECKOUT / pins}: {error.strerror}.") from error
