"""Action `ssh_trust`: add those host keys of `ssh_host_keys` to known_hosts that the user has confirmed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.utils.display import Display
from node_action import NodeAction, NodeFailure, is_no

from benchmark.cluster.host_keys import read_confirmed
from benchmark.errors import InputError
from benchmark.locks import take

CONFIRM = "yes"


class ActionModule(NodeAction):
    """Arguments: `seen` (the result of ssh_host_keys), `answer` (to the prompt), `fingerprints` (from -e)."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Append the confirmed keys to known_hosts, exactly as they were shown. Return their `lines`."""
        seen = self._task.args["seen"]
        if is_no(self._task.args.get("answer")):
            Display().display(f"{self.node}: its keys were not kept: the answer was no.")
            return {"changed": False, "declined": True}
        lines = self._confirmed(dict(zip(seen["fingerprints"], seen["lines"], strict=True)))
        if not self.check_mode:
            _append(Path(seen["file"]), lines)
        return {"changed": True, "file": seen["file"], "lines": lines}

    def _confirmed(self, line_of: dict[str, str]) -> list[str]:
        given = self._task.args.get("fingerprints") or ""
        try:
            confirmed = read_confirmed(",".join(map(str, given)) if isinstance(given, list) else str(given))
        except InputError as error:
            raise NodeFailure(str(error)) from error
        if confirmed:
            lines = [line for fingerprint, line in line_of.items() if fingerprint in confirmed]
            if not lines:
                raise NodeFailure(f"Not trusted: the node presents {', '.join(line_of)}, none in trust_fingerprints.")
            return lines
        if self.check_mode or str(self._task.args.get("answer") or "").strip().lower() == CONFIRM:
            return list(line_of.values())
        raise NodeFailure(
            "Not trusted: the fingerprints above were not confirmed. Compare them with the node's own (on its console: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then answer yes, or give one for each node with "
            "-e trust_fingerprints=SHA256:...,SHA256:..."
        )


def _append(path: Path, lines: list[str]) -> None:
    """Append whole lines to known_hosts under a lock: other nodes' workers do so at the same time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        take(file.fileno(), wait=True)
        before = file.read()
        start = b"" if not before or before.endswith(b"\n") else b"\n"
        file.write(start + "".join(line + "\n" for line in lines).encode())
