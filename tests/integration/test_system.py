"""Two nodes as one system over real sshd: each serves, one LoadGen asks both, and there is one verdict."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import DATA, Playbooks
from tests.integration.ssh_nodes import CHECKOUT


def starts(token_ms: float = 5, before: str = "") -> str:
    """Return the command that starts a server which takes so long for a token."""
    return f"cd {shlex.quote(str(CHECKOUT))}; {before} exec {sys.executable} -m tests.one_server {token_ms}"


def profile(directory: Path, **changes: Any) -> str:
    """Write the fast profile with those changes."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    path = directory / "system.yaml"
    path.write_text(yaml.safe_dump({**content, "engine": "endpoint", "engine_options": {}, **changes}))
    return str(path)


@pytest.fixture
def system(playbooks: Playbooks) -> Playbooks:
    """The playbooks with both nodes as one system."""
    playbooks.variables = {
        "benchmark_profile": profile(playbooks.directory),
        "benchmark_system": "cluster",
        "benchmark_endpoint_start": starts(),
        "benchmark_endpoint_model": "served",
        "benchmark_serve_port": 8042,
    }
    return playbooks


def test_one_loadgen_asks_all_nodes(system: Playbooks) -> None:
    server = {"scenario": "Server", "min_duration_ms": 1000, "min_query_count": 40}
    changes = {"scenario": "loadgen", "scenario_options": server, "samples": None}
    done = system.run(
        "benchmark", "-e", f"benchmark_profile={profile(system.directory, **changes)}", "-e", "benchmark_target_qps=20"
    )
    print(done.output)
    print(done.summary)
    assert done.code == 0, done.output
