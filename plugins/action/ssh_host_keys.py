"""Action `ssh_host_keys`: read a node's SSH host keys and compare them with known_hosts, on the controller."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import NodeAction, NodeFailure

from benchmark.cluster.host_keys import Address, HostKey, judge, read_address, read_keys
from benchmark.errors import InputError
from benchmark.fleet.ssh import unreachable


class ActionModule(NodeAction):
    """Changes nothing. A key that has changed, or was revoked, is a failure that shows both."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return `state`; for unknown keys also what `ssh_trust` needs, and `reported`, the lines to show."""
        if self._connection.transport != "ssh":
            return {"changed": False, "state": "not over SSH"}
        address = self._address()
        given = read_keys(self._through(address) if address.proxy else self._scan(address))
        if not given:
            raise NodeFailure(
                f"No SSH host key could be read from {address.host}, port {address.port}: is the node up, is sshd "
                "running, and are ansible_host and ansible_port right?"
            )
        held = [key for path in (*address.files, *address.system_files) for key in self._held(path, address.name)]
        state = judge(given, held)
        if state in ("changed", "revoked"):
            raise NodeFailure(self._refusal(state, address, given, held))
        prints = self._fingerprints(given)
        if state == "known":
            return {"changed": False, "state": state, "fingerprints": [words.split()[1] for words in prints]}
        return {
            "changed": False,
            "state": state,
            "file": str(Path(address.files[0]).expanduser()),
            "lines": [key.line(address.name) for key in given],
            "fingerprints": [words.split()[1] for words in prints],
            "reported": [f"{address.host}, port {address.port}", *prints],
        }

    def _address(self) -> Address:
        """Ask ssh itself, since its own configuration, the inventory and ansible.cfg all determine the address."""
        code, out, err = _run([*self._ssh(), "-G", "--", str(self._connection.get_option("host"))])
        if code != 0:
            raise NodeFailure(f"ssh rejects its arguments: {' '.join(err.split())[-300:]}")
        try:
            address = read_address(out)
        except InputError as error:
            raise NodeFailure(str(error)) from error
        if not address.files or address.files[0] in ("none", "/dev/null") or "%" in address.files[0]:
            kept = " ".join(address.files) or "empty"
            raise NodeFailure(f"UserKnownHostsFile is {kept}: set it to a file in which host keys can be kept.")
        return address

    def _ssh(self) -> list[str]:
        option = self._connection.get_option
        words = [str(option("ssh_executable"))]
        for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            words += shlex.split(str(option(name) or ""))
        words += ["-p", str(option("port"))] if option("port") else []
        return words + (["-l", str(option("remote_user"))] if option("remote_user") else [])

    def _through(self, address: Address) -> str:
        """Return the key of a node behind a jump host, as ssh stores it: ssh-keyscan does not support jump hosts.

        It does not log in. The options here affect only the node: the jump host is checked as always.
        """
        with tempfile.TemporaryDirectory() as place:
            kept = Path(place, "known_hosts")
            options = {
                **{"StrictHostKeyChecking": "accept-new", "UserKnownHostsFile": kept, "GlobalKnownHostsFile": "none"},
                **{"HashKnownHosts": "no", "PreferredAuthentications": "none", "BatchMode": "yes"},
                **{"ControlMaster": "no", "ControlPath": "none", "HostKeyAlias": "node"},
                "ConnectTimeout": int(self._connection.get_option("timeout")),
            }
            first, *words = self._ssh()
            # For ssh, the first value of an option counts.
            said = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
            _, _, err = _run([first, *said, *words, "--", str(self._connection.get_option("host")), "true"])
            if not kept.is_file():
                raise NodeFailure(unreachable(err, address.host))
            return kept.read_text(encoding="utf-8")

    def _scan(self, address: Address) -> str:
        wait = str(int(self._connection.get_option("timeout")))
        return _run(["ssh-keyscan", "-T", wait, "-p", str(address.port), "--", address.host])[1]

    @staticmethod
    def _held(path: str, name: str) -> tuple[HostKey, ...]:
        """Return the keys in a known_hosts file for the name, also hashed or by pattern."""
        place = Path(path).expanduser()
        return read_keys(_run(["ssh-keygen", "-F", name, "-f", str(place)])[1]) if place.is_file() else ()

    @staticmethod
    def _fingerprints(keys: tuple[HostKey, ...]) -> list[str]:
        """Return bits, fingerprint and type of every key, as ssh-keygen reports them."""
        lines = "".join(key.line("key") + "\n" for key in keys)
        _, out, err = _run(["ssh-keygen", "-l", "-E", "sha256", "-f", "-"], lines)
        reported = [line.replace(" key (", " (") for line in out.splitlines()]
        if len(reported) != len(keys):
            raise NodeFailure(f"ssh-keygen rejects the node's host keys: {' '.join(err.split())[-300:]}")
        return reported

    def _refusal(self, state: str, address: Address, given: tuple[HostKey, ...], held: list[HostKey]) -> str:
        now = ", ".join(self._fingerprints(given))
        if state == "revoked":
            return f"{address.name} presents a host key that known_hosts marks as revoked: {now}. Find out why."
        before = ", ".join(self._fingerprints(tuple(HostKey(*key.pair) for key in held if not key.marker)))
        return (
            f"The SSH host key of {address.name} has changed. It presents {now}; known_hosts has {before}. If the node "
            f"was reinstalled, remove the old key (ssh-keygen -R '{address.name}' -f {address.files[0]}) and run this "
            "again; if not, the connection may be intercepted."
        )


def _run(words: list[str], stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode, done.stdout, done.stderr
