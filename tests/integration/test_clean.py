"""playbooks/clean.yml takes away what is left of what has ended, after it was shown and confirmed, and nothing else."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from tests.integration.conftest import Playbooks
from tests.integration.test_reset import environment, files, run_of, words, write

FETCHED, YOUNG, OLD = (f"20261128T12000{number}Z-0123abcd" for number in range(3))


def age(path: Path, days: float) -> None:
    for one in (*path.rglob("*"), path):
        os.utime(one, (time.time() - days * 86400,) * 2)


def test_leftovers_go_once_shown_and_confirmed(playbooks: Playbooks) -> None:
    for name in ("jw2", "jw3"):
        place = playbooks.directory / "nodes" / name
        for run_id in (FETCHED, YOUNG, OLD):
            write(run_of(place, name, run_id) / "exit_code", "0\n")
            write(place / "runs" / run_id / name / "samples.jsonl", "x" * 2_000_000)
        age(place / "runs" / OLD, 20)
        environment(place / "llm-benchmark" / "venv")
        environment(place / "llm-benchmark" / "venv-0123456789ab")
        age(place / "llm-benchmark", 40)
    playbooks.variables["python_env_dir"] = (
        f"{playbooks.directory}/nodes/{{{{ inventory_hostname }}}}/llm-benchmark/venv"
    )
    # What came back from jw2; of jw3's run nothing did.
    write(playbooks.results / FETCHED / "nodes" / "jw2" / "mlperf_datacenter_jw2_20261128T120000Z.json", "{}")
    before = files(playbooks.directory / "nodes")

    shown = playbooks.run("clean", "--check", "-e", "clean_older_than=14d")
    assert shown.code == 0, shown.output
    assert files(playbooks.directory / "nodes") == before
    said = words(shown)
    for kind in ("a run that was fetched", "a run that was not fetched here", "an environment that was unused"):
        assert kind in said
    assert f"benchmark_resume={YOUNG} fetches it" in said
    # Two runs of jw2, and one of jw3.
    assert re.search(r"4\.[0-2] MB would be removed", said)
    assert re.search(r"2\.[0-1] MB would be removed", said)

    done = playbooks.run("clean", "-e", "clean_older_than=14d clean_confirm=true")
    assert done.code == 0, done.output
    for name, runs in (("jw2", {YOUNG}), ("jw3", {FETCHED, YOUNG})):
        place = playbooks.directory / "nodes" / name
        assert {path.name for path in (place / "runs").iterdir()} == runs
        assert {path.name for path in (place / "llm-benchmark").glob("venv*")} == {"venv"}
    refused = playbooks.run("clean", "-e", "clean_older_than=soon clean_confirm=true")
    assert refused.code != 0
    assert "clean_older_than is 'soon': give hours, days or weeks" in words(refused)
