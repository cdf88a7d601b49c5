"""The last lines of a run: the report, all runs, and the exact command that comes next."""

import shlex
from pathlib import Path

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.interruption import keep_interruption
from benchmark.cluster.next_steps import CHECKOUT, after_playbook, next_steps, without_summary
from benchmark.cluster.overview.write import write_index
from benchmark.files import read_record, write_record
from benchmark.records import RunRecord
from benchmark.rundir import RESULT_FILE, RUN_FILE
from tests.unit.building import RUN_ID, add_node, asked, make_run

COMMAND = "ansible-playbook playbooks/benchmark.yml -i 'my inventory.yml' --limit gpu_nodes"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """jw2 is complete, jw3 and jw10 are not."""
    run = make_run(tmp_path / "all runs" / RUN_ID, dict.fromkeys(("jw2", "jw3", "jw10"), asked(3)))
    add_node(run, "jw2", asked(3), [1000.0] * 3)
    return run


def ended(run_dir: Path, command: str = COMMAND) -> list[str]:
    run = read_record(run_dir / RUN_FILE, RunRecord)
    write_record(run_dir / RUN_FILE, run.model_copy(update={"command": command}))
    write_record(run_dir / RESULT_FILE, aggregate(run_dir))
    return next_steps(run_dir)


def test_after_a_failure_the_nodes_that_lack_a_result(run_dir: Path) -> None:
    write_index(run_dir.parent)
    report, page, here, again = ended(run_dir)
    assert report == f"Report: {run_dir}/report.html"
    assert page == f"All runs: {run_dir.parent}/index.html"
    command = shlex.split(here.removeprefix("The same in this terminal: "))
    assert command[-6:] == ["python3", "-m", "benchmark", "list", "--results-dir", str(run_dir.parent)]
    assert again == f"Measure jw3, jw10 again, in this run: {COMMAND} -e benchmark_resume={RUN_ID}"


def test_where_no_node_has_a_result_all_is_run_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / RUN_ID, dict.fromkeys(("jw2", "jw3"), asked(3)))
    assert ended(run)[2:] == [f"Run it again: {COMMAND}"]


def test_one_node_of_a_group_is_not_to_be_measured_alone() -> None:
    (said,) = after_playbook("preflight", ["jw2"], [], "ansible-playbook playbooks/preflight.yml --limit jw2", False)
    assert said == "jw2 is fit. Next: measure with all nodes of the group or the system, without this --limit."


@pytest.mark.parametrize(
    ("playbook", "well", "failed", "said"),
    [
        ("trust", ["jw2", "jw3"], [], ["Both nodes are trusted. Next: ansible-playbook playbooks/preflight.yml -i x"]),
        ("preflight", ["jw2"], [], ["jw2 is fit. Next: ansible-playbook playbooks/benchmark.yml -i x"]),
        ("provision", ["jw2"], ["jw3"], ["1 of 2 nodes is provisioned. Not provisioned, for the reasons above: jw3."]),
        ("preflight", [], ["jw2", "jw3"], []),  # settings were refused, or each says why
        ("reset", ["jw2"], [], []),
    ],
)
def test_a_playbook_without_a_run_says_what_comes_next(
    playbook: str, well: list[str], failed: list[str], said: list[str]
) -> None:
    assert after_playbook(playbook, well, failed, f"ansible-playbook playbooks/{playbook}.yml -i x") == said


def test_what_is_for_trust_alone_is_not_handed_on() -> None:
    given = "ansible-playbook playbooks/trust.yml -i 'my x.yml' -e trust_fingerprints=SHA256:a,SHA256:b --limit jw2"
    wanted = "ansible-playbook playbooks/preflight.yml -i 'my x.yml' --limit jw2"
    assert after_playbook("trust", ["jw2"], [], given) == [f"jw2 is trusted. Next: {wanted}"]


def test_after_an_interruption_the_run_is_resumed(run_dir: Path) -> None:
    keep_interruption(run_dir, "SIGINT")
    assert ended(run_dir)[2:] == [f"Resume it: {COMMAND} -e benchmark_resume={RUN_ID}"]


def test_without_a_summary_it_says_how_the_run_goes_on(run_dir: Path) -> None:
    run = read_record(run_dir / RUN_FILE, RunRecord)
    write_record(run_dir / RUN_FILE, run.model_copy(update={"command": COMMAND}))
    assert without_summary(run_dir) == [
        f"No summary was made, for the reason above. The run is in {run_dir}",
        f"Once that is fixed, resume it: {COMMAND} -e benchmark_resume={RUN_ID}",
    ]


def test_after_success_and_by_hand_there_is_nothing_to_do(run_dir: Path) -> None:
    assert len(ended(run_dir, "NODE_NAME=jw2 python3 -m benchmark run")) == 2
    for node in ("jw3", "jw10"):
        add_node(run_dir, node, asked(3), [1000.0] * 3)
    assert len(ended(run_dir)) == 2


def test_commands_are_for_the_directory_one_is_in(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(run_dir)[1].startswith(f"All runs: cd {shlex.quote(str(CHECKOUT))} && python3")
    monkeypatch.setattr("benchmark.cluster.next_steps.CHECKOUT", tmp_path)
    assert ended(run_dir)[:2] == [
        f"Report: all runs/{RUN_ID}/report.html",
        "All runs: python3 -m benchmark list --results-dir 'all runs'",
    ], "there is no page"
    write_index(run_dir.parent)
    assert ended(run_dir)[1:3] == [
        "All runs: all runs/index.html",
        "The same in this terminal: python3 -m benchmark list --results-dir 'all runs'",
    ]
