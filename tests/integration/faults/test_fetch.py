"""What a node measured counts once it is here, however its programs end; where it stays, a further attempt gets it."""

from __future__ import annotations

from tests.integration.conftest import Playbooks
from tests.integration.faults import hostile
from tests.integration.faults.fleet import Fleet

GREW = '#!/bin/sh\n/bin/tar "$@"\necho "tar: ./benchmark.log: file changed as we read it" >&2\nexit 1\n'
# With exit code 0, until a file is gone.
CUT = '#!/bin/sh\n/bin/tar "$@"\n[ ! -e {flag} ] || truncate -s -20 "$2"\n'


def test_tar_is_judged_by_its_archive_and_what_stayed_on_a_node_is_got_by_resuming(playbooks: Playbooks) -> None:
    fleet, programs = Fleet(playbooks, first_address=140), playbooks.directory / "programs"
    flag = playbooks.directory / "cut"
    flag.touch()
    try:
        fleet.add_own("grew", hostile.program(programs / "grew", "tar", GREW))
        fleet.add_own("cut", hostile.program(programs / "cut", "tar", CUT.format(flag=flag)))
        inventory = playbooks.inventory(fleet.hosts)
        done = playbooks.run("benchmark", inventory=inventory)
        assert done.code == 2, done.output
        assert done.row("grew")["counted"], done.output
        lies, run_id = playbooks.directory / "nodes/cut/runs", done.run_dir.name
        reason = done.row("cut")["reason"]
        assert "fetched.tar.gz: cannot be unpacked" in reason
        assert f"stay on cut in {lies}/{run_id}/cut: -e benchmark_resume={run_id} fetches them." in reason
        measured = (lies / run_id / "cut" / "samples.jsonl").read_text()
        flag.unlink()
        done = playbooks.run("benchmark", "-e", f"benchmark_resume={run_id}", inventory=inventory)
        assert done.code == 0, done.output
        assert done.cluster["counted"] == 2, done.output
        assert (done.run_dir / "nodes/cut/samples.jsonl").read_text() == measured, "not measured again"
        assert not (lies / run_id).exists()
    finally:
        fleet.close()
