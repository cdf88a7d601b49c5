"""Resuming a run: which run, with which settings, which nodes; what earlier attempts left is kept apart."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.attempts import open_attempt
from benchmark.cluster.leader import controller
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.resume import left_out, remaining, require_ended, settings_to_resume
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import Attempt, Failure, ReadyNode, RunRecord, Window
from benchmark.resolve import resolve
from benchmark.rundir import NODES, ORDER, RUN_FILE, RunOrder, read_run
from tests.unit.building import RUN_ID, START_NS, add_node, asked, make_run

S = 10**9


def opened(directory: Path, *nodes: str, **settings: Any) -> RunRecord:
    """Make a run of those nodes as ansible-playbook opens one."""
    resolved = resolve({"benchmark_target_qps": 0.4, **settings})
    run_dir = make_run(directory, dict.fromkeys(nodes, resolved))
    for node in nodes:
        write_record(run_dir / NODES / node / ORDER, RunOrder(run_id=RUN_ID, node=node, resolved=resolved))
    first = Attempt(at="2025-01-02T03:04:05+00:00", command="first", nodes=nodes)
    run = read_run(run_dir).model_copy(update={"attempts": (first,), "on_command_line": ("benchmark_target_qps",)})
    write_record(run_dir / RUN_FILE, run)
    return run


def test_what_is_not_said_again_is_the_runs_own(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2", benchmark_timeout_s=77)
    # The inventory says 0.5; the first time -e said otherwise.
    now: dict[str, dict[str, Any]] = {"jw2": {"benchmark_target_qps": 0.5, "benchmark_dtype": "float16"}}
    assert settings_to_resume(run, now, ()) == {"jw2": run.nodes["jw2"]}


def test_every_difference_is_named_with_its_nodes(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2", "jw3")
    now: dict[str, dict[str, Any]] = {
        "jw2": {"benchmark_target_qps": 0.5, "benchmark_dtype": "bfloat16"},
        "jw3": {"benchmark_target_qps": 0.5},
    }
    with pytest.raises(InputError) as refusal:
        settings_to_resume(run, now, ("benchmark_target_qps",))
    lines = str(refusal.value).splitlines()
    assert f"the run {RUN_ID}" in lines[0]
    assert sorted(lines[1:-1]) == [
        "benchmark_dtype is 'bfloat16'; the run was made with 'float16'. [jw2]",
        "benchmark_target_qps is 0.5; the run was made with 0.4. [jw2, jw3]",
    ]
    assert "Nothing was touched" in lines[-1]


def test_a_profile_that_was_edited_is_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    content = "name: mine\nversion: 1\nscenario: closed_loop\nengine: simulated\ndataset: curated\nsamples: {}\n"
    path.write_text(content.format(8))
    run = opened(tmp_path / "run", "jw2", benchmark_profile=str(path))
    path.write_text(content.format(9))
    with pytest.raises(InputError, match=r"The profile's samples is 9; the run was made with 8\. \[jw2\]"):
        settings_to_resume(run, {"jw2": {"benchmark_profile": str(path)}}, ("benchmark_profile",))
    path.unlink()
    assert settings_to_resume(run, {"jw2": {}}, ()) == run.nodes, "nobody names it: the run has it whole"


def test_a_mistyped_setting_is_reported_as_ever(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2")
    with pytest.raises(InputError, match="did you mean benchmark_model"):
        settings_to_resume(run, {"jw2": {"benchmark_modell": "x/y"}}, ())


def test_another_version_of_the_program_is_a_difference(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2").model_copy(update={"versions": {"llm-datacenter-benchmark": "0.0.1"}})
    with pytest.raises(InputError, match=r"the run was made with 0\.0\.1"):
        settings_to_resume(run, {"jw2": {}}, ())


def test_where_results_lie_may_differ(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2")
    now: dict[str, dict[str, Any]] = {"jw2": {"benchmark_results_dir": "elsewhere", "benchmark_fail_on_invalid": False}}
    assert settings_to_resume(run, now, ("benchmark_fail_on_invalid",)) == run.nodes


def test_a_new_node_is_asked_what_the_command_line_asked(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2")
    resolved = settings_to_resume(run, {"jw9": {"benchmark_target_qps": 0.5, "benchmark_dtype": "float32"}}, ())
    assert resolved["jw9"].settings.benchmark_target_qps == 0.4
    assert resolved["jw9"].settings.benchmark_dtype == "float32"
    with pytest.raises(InputError, match=r"benchmark_sync_timeout_s is 5; the run was made with 900\. \[jw9\]"):
        settings_to_resume(run, {"jw9": {"benchmark_sync_timeout_s": 5}}, ())


@given(st.sets(st.sampled_from(["benchmark_timeout_s", "benchmark_sync_timeout_s", "hf_cache_timeout_s"])))
def test_a_difference_is_reported_exactly_where_one_is(changed: set[str]) -> None:
    stored = resolve({})
    run = RunRecord(run_id="r", created_at="now", command="", versions={}, nodes={"n": stored})
    now = {name: getattr(stored.settings, name) + 1 for name in changed}
    if not changed:
        assert settings_to_resume(run, {"n": now}, tuple(now)) == {"n": stored}
        return
    with pytest.raises(InputError) as refusal:
        settings_to_resume(run, {"n": now}, tuple(now))
    assert {line.split()[0] for line in str(refusal.value).splitlines()[1:-1]} == changed


def test_only_nodes_without_a_believed_result_are_left(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2", "jw3", "jw4", "jw5", "gone", benchmark_target_qps=0.5)
    complete, broken, cut, elsewhere = "jw2", "jw3", "jw4", "jw5"
    for node in (complete, broken, cut):
        samples = run.nodes[node].profile.samples or 0
        add_node(tmp_path, node, run.nodes[node], [1800.0] * samples, accuracy={})
    (tmp_path / NODES / broken / "samples.jsonl").write_text("")
    next((tmp_path / NODES / cut).glob("mlperf_datacenter_*")).unlink()
    left = remaining(tmp_path, run, ["new", complete, broken, cut], {complete, broken, cut, elsewhere, "new"})
    assert (left.todo, left.done) == ((broken, cut, "new"), (complete,))
    assert left.notes == (
        "No longer in the inventory, and left as they are in the run: gone.",
        "New to the run, measured and added to it: new.",
        "Without a complete result, and not in this play (--limit): jw5.",
    )


def test_a_limited_run_keeps_to_its_nodes_unless_named(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2")
    play = ["jw10", "jw3", "jw2"]
    assert left_out(run, play, named=False) == ()
    by_command = run.model_copy(update={"command": "ansible-playbook x.yml --limit jw2"})
    for limited in (run.model_copy(update={"inventory": tuple(play)}), by_command):
        assert left_out(limited, play, named=False) == ("jw3", "jw10")
        assert left_out(limited, play, named=True) == ()
    assert left_out(by_command.model_copy(update={"inventory": ("jw2",)}), play, named=False) == ()


def test_a_run_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2")
    assert RunRecord.model_validate({**run.model_dump(mode="json"), "limited": True}) == run


def test_what_an_attempt_left_is_not_taken_for_the_result(tmp_path: Path) -> None:
    run_dir = tmp_path / RUN_ID
    run = opened(run_dir, "jw2", "jw3")
    place = run_dir / NODES / "jw3"
    write_record(place / "failure.json", Failure(node="jw3", stage="benchmark", reason="It burnt."))
    (place / "samples.jsonl").write_text("measured")
    (run_dir / "start.json").write_text("{}")
    number = open_attempt(run_dir, run, {"jw3": run.nodes["jw3"]}, command="second", notes=("A note.",))
    assert number == 2
    assert sorted(path.name for path in place.iterdir()) == ["attempt-1"]
    assert (place / "attempt-1" / "samples.jsonl").read_text() == "measured"
    assert sorted(p.name for p in (place / "attempt-1").iterdir()) == ["failure.json", "order.json", "samples.jsonl"]
    assert (run_dir / "attempt-1" / "start.json").exists()
    assert (run_dir / NODES / "jw2" / ORDER).exists(), "the other's files stay"
    attempts = read_run(run_dir).attempts
    assert [(one.command, one.nodes, one.notes) for one in attempts] == [
        ("first", ("jw2", "jw3"), ()),
        ("second", ("jw3",), ("A note.",)),
    ]
    (row,) = [row for row in aggregate(run_dir).nodes if row.node == "jw3"]
    assert (row.status, row.reason) == ("missing", "No result came back.")
    # A third attempt keeps the second's beside the first's.
    write_record(place / ORDER, RunOrder(run_id=RUN_ID, node="jw3", attempt=2, resolved=run.nodes["jw3"]))
    (place / "samples.jsonl").write_text("again")
    assert open_attempt(run_dir, read_run(run_dir), {"jw3": run.nodes["jw3"]}, command="third") == 3
    assert [(place / f"attempt-{n}" / "samples.jsonl").read_text() for n in (1, 2)] == ["measured", "again"]


def merged(tmp_path: Path, first_apart_s: float = 0) -> Path:
    """Make a run of three nodes, two of which its first attempt measured and one its second, an hour later."""
    run_dir = tmp_path / RUN_ID
    quick = asked(3)
    make_run(run_dir, dict.fromkeys(("jw2", "jw3", "jw4"), quick))
    attempts = tuple(
        Attempt(at=f"2025-01-02T0{hour}:04:05+00:00", command="", nodes=nodes)
        for hour, nodes in ((3, ("jw2", "jw3", "jw4")), (4, ("jw4",)))
    )
    write_record(run_dir / RUN_FILE, read_run(run_dir).model_copy(update={"attempts": attempts}))
    for node, attempt, start_s in (("jw2", 1, 0.0), ("jw3", 1, first_apart_s), ("jw4", 2, 3600.0)):
        start = START_NS + int(start_s * S)
        window = Window.of(start, start + 6 * S)
        add_node(run_dir, node, quick, [1800.0] * 3, attempt=attempt, window=window)
    return run_dir


def test_attempts_are_judged_each_on_its_own_overlap_and_named(tmp_path: Path) -> None:
    run_dir = merged(tmp_path)
    result = aggregate(run_dir)
    assert result.verdict.valid, result.verdict.reasons
    assert result.overlap is None
    assert [(one.number, one.nodes) for one in result.attempts] == [(1, ("jw2", "jw3")), (2, ("jw4",))]
    assert result.attempts[0].overlap is not None
    assert result.attempts[0].overlap.together_s == 6
    words = " ".join(render_cluster(result, read_run(run_dir)).split())
    assert "attempt 1, 2025-01-02 03:04:05 UTC: jw2, jw3; these together for 6.0 s of 6.0 s" in words
    assert "attempt 2, 2025-01-02 04:04:05 UTC: jw4 never all at once" in words
    assert "measured in 2 attempts and never all at once: a fleet figure" in words
    assert "VALID: every node of the run is counted and valid. They were measured in 2 attempts" in words


def test_nodes_of_one_attempt_must_still_measure_together(tmp_path: Path) -> None:
    result = aggregate(merged(tmp_path, first_apart_s=60))
    assert not result.verdict.valid
    assert result.verdict.reasons == ("The nodes did not all measure at the same time.",)


def test_a_result_of_an_attempt_without_the_node_is_refused(tmp_path: Path) -> None:
    run_dir = merged(tmp_path)
    run = read_run(run_dir)
    changed = run.attempts[1].model_copy(update={"nodes": ("jw3",)})
    write_record(run_dir / RUN_FILE, run.model_copy(update={"attempts": (run.attempts[0], changed)}))
    (row,) = [row for row in aggregate(run_dir).nodes if row.node == "jw4"]
    assert row.status == "refused"
    assert "it is from attempt 2 at the run, in which jw4 did not take part" in row.reason


def test_a_result_fetched_later_keeps_the_clock_of_its_attempt(tmp_path: Path) -> None:
    run_dir = merged(tmp_path)
    for node, offset_ns in (("jw2", 0), ("jw3", 2 * S)):
        clock = ReadyNode(node=node, launched_unix_ns=1, offset_ns=offset_ns, uncertainty_ns=1000, round_trips=8)
        place = run_dir / NODES / node
        aside = place / "attempt-1"
        aside.mkdir()
        write_record(aside / "ready.json", clock)
        write_record(place / "ready.json", clock.model_copy(update={"attempt": 2, "offset_ns": 9 * S}))
    overlap = aggregate(run_dir).attempts[0].overlap
    assert overlap is not None
    assert (overlap.together_s, overlap.skew_ms) == (4, 2000)


def test_a_run_that_still_goes_on_is_not_resumed(tmp_path: Path) -> None:
    run = opened(tmp_path, "jw2")
    process = subprocess.Popen(["sleep", "60"])
    try:
        leader = controller(process.pid)
        attempt = run.attempts[0].model_copy(update={"controller": leader})
        going = run.model_copy(update={"attempts": (attempt,)})
        with pytest.raises(InputError, match=f"is still going, under process {process.pid}"):
            require_ended(going)
    finally:
        process.kill()
        process.wait()
    require_ended(going)
    require_ended(run)


def test_a_leader_that_is_a_zombie_leads_no_more(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    leader = controller(process.pid)
    attempt = opened(tmp_path, "jw2").attempts[0].model_copy(update={"controller": leader})
    going = opened(tmp_path, "jw2").model_copy(update={"attempts": (attempt,)})
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists()
    require_ended(going)
    process.wait()


def test_a_pid_given_to_another_process_is_not_the_leader() -> None:
    me = controller(os.getpid())
    parent = controller(os.getppid())
    assert me is not None
    assert parent is not None
    earlier = parent.model_copy(update={"started": parent.started + 1})
    attempt = Attempt(at="now", command="", nodes=(), controller=earlier)
    require_ended(RunRecord(run_id="r", created_at="now", command="", versions={}, nodes={}, attempts=(attempt,)))


def test_a_resumed_run_is_written_where_it_was(tmp_path: Path) -> None:
    run_dir = merged(tmp_path)
    again = open_attempt(run_dir, read_run(run_dir), {"jw5": asked(3)}, command="more", hosts={"jw5": "10.0.0.5"})
    run = read_record(run_dir / RUN_FILE, RunRecord)
    assert again == 3
    assert list(run.nodes) == ["jw2", "jw3", "jw4", "jw5"]
    assert run.hosts == {"jw5": "10.0.0.5"}
    assert (tmp_path / "latest").resolve() == run_dir
