"""What the kernel tells of a run's share of the CPU, in both versions of control groups."""

import os
import time
from pathlib import Path

import pytest

from benchmark.node.watch import cpu_time


def tree(root: Path, groups: str, **files: str) -> tuple[Path, Path]:
    """Make /proc/self/cgroup and a control group hierarchy; "__" in a name stands for "/"."""
    proc, cgroup = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = cgroup / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroup


def test_version_2_the_tightest_quota_of_the_group(tmp_path: Path) -> None:
    places = tree(
        tmp_path,
        "0::/user.slice/job\n",
        user_DOT_slice__cpu_DOT_max="150000 100000\n",
        user_DOT_slice__job__cpu_DOT_max="max 100000\n",
        user_DOT_slice__job__cpu_DOT_stat="usage_usec 5\nnr_throttled 0\nthrottled_usec 0\n",
        user_DOT_slice__cpu_DOT_stat="usage_usec 5\nnr_throttled 3\nthrottled_usec 2500000\n",
    )
    assert cpu_time.quota_cpus(*places) == 1.5
    assert cpu_time.held_s(*places) == 2.5


def test_version_1(tmp_path: Path) -> None:
    places = tree(
        tmp_path,
        "3:cpuset:/job\n2:cpu,cpuacct:/job\n0::/\n",
        cpu__job__cpu_DOT_cfs_quota_us="20000\n",
        cpu__job__cpu_DOT_cfs_period_us="100000\n",
        cpu__job__cpu_DOT_stat="nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n",
        cpu__cpu_DOT_cfs_quota_us="-1\n",
        cpu__cpu_DOT_cfs_period_us="100000\n",
    )
    assert cpu_time.quota_cpus(*places) == pytest.approx(0.2)
    assert cpu_time.held_s(*places) == 1.5


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/gone\n", "1:cpu:/\n"])
def test_what_is_not_told_is_absent(tmp_path: Path, text: str) -> None:
    places = tree(tmp_path, text)
    assert cpu_time.quota_cpus(*places) is None
    assert cpu_time.held_s(*places) is None


@pytest.mark.parametrize(
    ("text", "stolen"),
    [
        ("cpu  9 9 9 9 9 9 9 250 9 9\ncpu0 9 9 9 9 9 9 9 50 9 9\n", 250),
        ("cpu  9 9 9 9 9 9 9 0\n", 0),
        ("cpu  9 9 9 9 9 9 9\n", None),  # Linux before 2.6.11
        ("cpu0 9 9 9 9 9 9 9 50 9 9\n", None),
        ("cpu  9 9 9 9 9 9 9 -1 9 9\n", None),
        ("", None),
    ],
)
def test_what_a_hypervisor_took(tmp_path: Path, text: str, stolen: int | None) -> None:
    (tmp_path / "stat").write_text(text)
    assert cpu_time.stolen_s(tmp_path) == (None if stolen is None else stolen / os.sysconf("SC_CLK_TCK"))


def test_between_two_readings_each_counter_rose_or_is_absent() -> None:
    before, after = cpu_time.Reading(10, 1, 2, 3, 4), cpu_time.Reading(15, 1.5, 2.5, None, 4.25)
    had = cpu_time.between(before, after)
    assert (had.wall_s, had.used_s, had.waited_s, had.held_s, had.stolen_s) == (5, 0.5, 0.5, None, 0.25)


def test_threads_that_share_a_core_wait_for_it() -> None:
    if cpu_time.read().waited_s is None:
        pytest.skip("this kernel keeps no schedstat")
    allowed = os.sched_getaffinity(0)
    before = cpu_time.read()
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {min(allowed)})
        while True:
            pass
    try:
        os.sched_setaffinity(0, {min(allowed)})
        # Of processor time, however busy the machine is. It is counted in ticks of 10 ms: two more than below.
        until = time.process_time() + 0.32
        while time.process_time() < until:
            pass
        had = cpu_time.between(before, cpu_time.read())
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.sched_setaffinity(0, allowed)
    assert had.waited_s is not None
    assert had.waited_s > 0.05
    assert had.used_s >= 0.3
    assert had.wall_s >= had.used_s
