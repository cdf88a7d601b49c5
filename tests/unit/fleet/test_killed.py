"""Who killed a run, from what its node counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.fleet.killed import NO_LIMIT, UNKNOWN, Kills, read_kills, why_killed

NO_V1_LIMIT = 9223372036854771712


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        (
            "cgroup 0 1\nnode 4 5\nlimit 67108864\n",
            "because memory ran out: its cgroup may take 64 MiB. Free memory",
        ),
        (
            f"cgroup 2 4\nnode 4 6\nlimit {NO_V1_LIMIT}\n",
            "OOM killer, because memory ran out. Free memory",
        ),
        ("cgroup 2 3\nnode 4 6\nlimit max\n", "OOM killer, because memory ran out. Free memory"),
        ("cgroup  \nnode 4 6\nlimit\n", "the kernel's OOM killer killed processes on the node meanwhile (2)"),
        ("cgroup 1 1\nnode 4 6\nlimit 67108864\n", "and not by the kernel's OOM killer"),
        ("cgroup  \nnode 4 4\nlimit\n", "and not by the kernel's OOM killer"),
        ("cgroup  \nnode  \nlimit\n", UNKNOWN),
        ("", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_the_counts_say_who_it_was(tmp_path: Path, counted: str | None, said: str) -> None:
    if counted is not None:
        (tmp_path / "oom_kills").write_text(counted)
    assert said in why_killed(tmp_path)


@given(text=st.text(st.sampled_from("cgroup node limit 0123456789-\n\t\0max٣"), max_size=3000))
def test_whatever_a_node_wrote_is_read_without_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("killed") / "oom_kills"
    path.write_text(text)
    kills = read_kills(path)
    assert all(value is None or value >= 0 for value in (kills.cgroup, kills.node, kills.limit))
    assert kills.limit is None or kills.limit < NO_LIMIT


@given(before=st.integers(0, 2**63), kills=st.integers(0, 2**20), limit=st.integers(0, NO_LIMIT - 1))
def test_what_is_read_is_what_was_counted(
    tmp_path_factory: pytest.TempPathFactory, before: int, kills: int, limit: int
) -> None:
    path = tmp_path_factory.mktemp("killed") / "oom_kills"
    path.write_text(f"cgroup {before} {before + kills}\nnode 0 {kills}\nlimit {limit}\n")
    assert read_kills(path) == Kills(kills, kills, limit)
