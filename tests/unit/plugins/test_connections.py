"""The connections that one task makes to many nodes: each has what its own node's variables say."""

import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins" / "shared"))

from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import connection_loader
from connections import Connections


class Loader:
    """Ansible's own, which counts."""

    made = 0

    def get_with_context(self, *arguments: Any, **named: Any) -> Any:
        self.made += 1
        return connection_loader.get_with_context(*arguments, **named)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def connections(loader: Loader) -> Connections:
    task = Task()
    task.connection = "ssh"
    shared = SimpleNamespace(connection_loader=loader)
    return Connections(SimpleNamespace(_task=task, _play_context=PlayContext(), _shared_loader_obj=shared))


def words(connections: Connections, node: str, **variables: Any) -> list[str]:
    way = connections.ssh_to(node, {"inventory_hostname": node, **variables})
    return [word.decode() for word in way.command("true")]


def test_each_node_has_its_own_address_and_connection(connections: Connections) -> None:
    jw2 = words(connections, "jw2", ansible_host="10.0.0.2", ansible_user="bench")
    jw3 = words(connections, "jw3", ansible_host="10.0.0.3", ansible_user="bench")
    bare = words(connections, "jw4.example", ansible_user="bench")
    assert "10.0.0.2" in jw2
    assert "10.0.0.3" in jw3
    assert "jw4.example" in bare
    paths = [next(word for word in each if "ControlPath" in word) for each in (jw2, jw3, bare)]
    assert len(set(paths)) == 3


def test_one_address_behind_two_hosts_is_two_nodes(connections: Connections) -> None:
    """ansible-core knows a shared connection by address, port and user alone, and would ask one node twice."""

    def path(node: str, **variables: Any) -> str:
        return next(
            word for word in words(connections, node, ansible_host="10.0.0.2", **variables) if "ControlPath" in word
        )

    jumps = [f"-o ProxyJump=gate{number}" for number in (1, 2, 2)]
    one, other, again = (path(f"jw{n}", ansible_ssh_common_args=jump) for n, jump in enumerate(jumps))
    assert one != other
    assert other == again
    assert len({path("jw5", ansible_ssh_common_args=jump, ansible_control_path="/k/own") for jump in jumps}) == 1


def test_what_differs_between_nodes_is_each_one_s_own(connections: Connections) -> None:
    jw2 = words(connections, "jw2", ansible_port=2222, ansible_ssh_common_args="-o ProxyJump=gate")
    jw3 = words(connections, "jw3", ansible_port=2223, ansible_ssh_private_key_file="/keys/jw3")
    again = words(connections, "jw4", ansible_port=2222, ansible_ssh_common_args="-o ProxyJump=gate")
    assert "Port=2222" in jw2
    assert "ProxyJump=gate" in jw2
    assert "Port=2223" in jw3
    assert 'IdentityFile="/keys/jw3"' in jw3
    assert "ProxyJump=gate" not in jw3
    assert "Port=2222" in again
    assert "ProxyJump=gate" in again


def test_a_password_is_kept_from_its_own_sessions_alone(connections: Connections) -> None:
    variables = {"ansible_password": "secret", "ansible_user": "bench"}
    jw2 = connections.ssh_to("jw2", variables)
    assert isinstance(jw2.login, functools.partial)
    assert "PasswordAuthentication=no" in " ".join(word.decode() for word in jw2.command("true"))
    (opens,) = jw2.login.args
    assert (opens.get_option("password"), opens.get_option("host")) == ("secret", "jw2")
    jw3 = connections.ssh_to("jw3", variables)
    assert isinstance(jw3.login, functools.partial)
    assert jw3.login.args[0].get_option("password") == "secret"
    assert jw3.address == "jw3"


def test_options_are_worked_out_once_for_like_nodes(connections: Connections, loader: Loader) -> None:
    for number in range(50):
        connections.connect(f"node{number}", {"ansible_host": f"10.0.0.{number}", "ansible_user": "bench"})
    assert loader.made == 2, "one to see which variables are read, and one with options"


def test_this_machine_needs_no_address(connections: Connections) -> None:
    way = connections.ssh_to("here", {"ansible_connection": "local"})
    assert way.command("true") == ["/bin/sh", "-c", "true"]
