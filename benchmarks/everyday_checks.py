"""Check the runs of everyday.py. Each check returns how many things it checked, and the problems."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark.rundir import RESULT_FILE
from benchmarks.everyday_people import Person, Run

# Most problems printed for each check.
MOST_SHOWN = 8
KEEP = 4

Problems = list[str]


@dataclass(frozen=True)
class Everything:
    """The people with their runs, the profiles (by name), and the nodes."""

    people: Sequence[Person]
    profiles: Mapping[str, Any]
    nodes: Sequence[str]


def check_all(everything: Everything) -> int:
    """Print a line for each check, in order (the last ones remove things); return 1 if one fails."""
    wrong = 0
    print(f"\n{'check':<80}{'checked':>10}  result")
    for check in CHECKS:
        try:
            count, problems = check(everything)
        except Exception as error:  # a check that breaks is wrong too, and the others go on
            count, problems = 0, [f"it could not be checked: {type(error).__name__}: {error}"]
        if not count and not problems:
            problems = ["there was nothing to check"]
        wrong += bool(problems)
        print(f"{(check.__doc__ or '').rstrip('.'):<80}{count:>10}  {'WRONG' if problems else 'ok'}", flush=True)
        for problem in problems[:MOST_SHOWN]:
            print(f"    {problem}")
        if more := problems[MOST_SHOWN:]:
            print(f"    and {len(more)} more")
    print(f"\n{wrong} of {len(CHECKS)} checks failed." if wrong else "\nAll checks passed.")
    return int(bool(wrong))


def _opened(people: Sequence[Person]) -> Iterator[tuple[Person, Run, Path]]:
    for person in people:
        for run in person.runs:
            if run.run_id:
                yield person, run, person.results / run.run_id


def _ended(people: Sequence[Person]) -> Iterator[tuple[Person, Run, Path, dict[str, Any]]]:
    """Yield the runs that have a summary, with the summary."""
    for person, run, run_dir in _opened(people):
        path = run_dir / RESULT_FILE
        if run.fate != "abandoned" and path.is_file():
            yield person, run, run_dir, json.loads(path.read_text())


def _node_results(run_dir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(run_dir.glob("nodes/*/mlperf_datacenter_*.json")):
        yield path.parent.name, json.loads(path.read_text())


def nothing_lost(everything: Everything) -> tuple[int, Problems]:
    """Every run was opened, ended well, and has all samples of all nodes."""
    problems, count = [], 0
    for person in everything.people:
        for run in person.runs:
            where, count = f"{person.name}, run {run.number + 1}", count + 1
            if not run.run_id:
                problems.append(f"{where}: no run was opened (exit code {run.code}): {_last(run.log)}")
            elif run.fate != "abandoned" and run.code != 0:
                problems.append(f"{where}, {run.run_id}: exit code {run.code}: {_last(run.log)}")
    for person, run, run_dir, result in _ended(everything.people):
        if result["counted"] != len(everything.nodes):
            reasons = "; ".join(f"{row['node']}: {row['reason']}" for row in result["nodes"] if not row["counted"])
            problems.append(
                f"{person.name}, {run.run_id}: {result['counted']} of {len(everything.nodes)} nodes counted: {reasons}"
            )
        for node in everything.nodes:
            path = run_dir / "nodes" / node / "samples.jsonl"
            lines = len(path.read_text().splitlines()) if path.is_file() else 0
            if lines != everything.profiles[run.profile]["samples"]:
                problems.append(f"{person.name}, {run.run_id}: {node} has {lines} samples")
    return count, problems


def unique_ids(everything: Everything) -> tuple[int, Problems]:
    """No two runs have the same id, whoever opened them."""
    found = Counter(run_dir.name for _, _, run_dir in _opened(everything.people))
    return sum(found.values()), [f"{run_id} is the id of {count} runs" for run_id, count in found.items() if count > 1]


def own_code(everything: Everything) -> tuple[int, Problems]:
    """Each result was measured by the code of the person who started the run."""
    problems, count = [], 0
    for person, run, run_dir, _ in _ended(everything.people):
        for node, result in _node_results(run_dir):
            count += 1
            whose = result["engine"]["details"].get("whose")
            if whose != person.name:
                problems.append(f"{person.name}, {run.run_id}: {node} as {run.account} ran the code of {whose}")
    return count, problems


def known_code(everything: Everything) -> tuple[int, Problems]:
    """Each result names the code that measured, and its run names the same code."""
    problems, count, by_person = [], 0, dict[str, set[str]]()
    for person, run, run_dir, _ in _ended(everything.people):
        asked = set(_values(json.loads((run_dir / "run.json").read_text()), "code"))
        for node, result in _node_results(run_dir):
            count += 1
            measured = set(_values(result, "code"))
            by_person.setdefault(person.name, set()).update(measured)
            if not measured or not measured <= asked:
                problems.append(f"{run.run_id}: {node} says {sorted(measured) or 'nothing'}, run.json {sorted(asked)}")
    whole = list(by_person.values())
    if len(whole) == 2 and whole[0] & whole[1]:
        problems.append("the code of both checkouts has the same hash")
    return count, problems


def _values(record: Any, name: str) -> Iterator[str]:
    """Yield the sha256 of every record of that name, at any depth."""
    if isinstance(record, dict):
        for key, value in record.items():
            if key == name and isinstance(value, dict) and "sha256" in value:
                yield str(value["sha256"])
            else:
                yield from _values(value, name)
    elif isinstance(record, list):
        for one in record:
            yield from _values(one, name)


def alone_on_a_node(everything: Everything) -> tuple[int, Problems]:
    """No two runs measured on a node at the same time."""
    windows: dict[str, list[tuple[int, int, str]]] = {}
    for person, run, run_dir, _ in _ended(everything.people):
        for node, result in _node_results(run_dir):
            window = result["window"]
            known = (window["started_unix_ns"], window["ended_unix_ns"], f"{person.name}'s {run.run_id}")
            windows.setdefault(node, []).append(known)
    problems = [
        f"{node}: {first} and {second} overlap by {(end - begin) / 1e9:.2f} s"
        for node, each in windows.items()
        for (_, end, first), (begin, _, second) in pairwise(sorted(each))
        if begin < end
    ]
    return sum(map(len, windows.values())), problems


def in_history(everything: Everything) -> tuple[int, Problems]:
    """Every run's figures are in history, node by node, unchanged."""
    problems: Problems = []
    count = 0
    for person in everything.people:
        done = person.ask("history", "--json", "--results-dir", str(person.results))
        if done.returncode:
            return count, [*problems, f"{person.name}: history ended with {done.returncode}: {done.stderr.strip()}"]
        told: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for node in json.loads(done.stdout)["nodes"]:
            for point in node["points"]:
                told.setdefault((point["run_id"], node["node"]), []).append(point["values"])
        for _, run, _, result in _ended([person]):
            for row in result["nodes"]:
                if not row["counted"]:
                    continue
                count += 1
                points = told.get((run.run_id, row["node"]), [])
                if len(points) != 1:
                    problems.append(f"{person.name}, {run.run_id}: {row['node']} is in history {len(points)} times")
                elif points[0].get("qps") != row["metrics"]["qps"]:
                    problems.append(f"{person.name}, {run.run_id}: {row['node']}'s QPS differs in history")
    return count, problems


def csv_right(everything: Everything) -> tuple[int, Problems]:
    """The CSV of each profile's newest run has the run's own figures."""
    problems, count = [], 0
    for person, run, run_dir, result in _newest(everything.people):
        done = person.ask("export", str(run_dir), "--format", "csv")
        rows = {row["node"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
        for row in result["nodes"]:
            count += 1
            exported = rows.get(row["node"], {})
            if row["counted"] and float(exported.get("qps") or "nan") != row["metrics"]["qps"]:
                problems.append(f"{person.name}, {run.run_id}: {row['node']}'s qps is {exported.get('qps')} in the CSV")
    return count, problems


def _newest(people: Sequence[Person]) -> Iterator[tuple[Person, Run, Path, dict[str, Any]]]:
    """Yield each person's newest run of each profile."""
    yield from {(one[0].name, one[1].profile): one for one in _ended(people)}.values()


def prometheus(everything: Everything) -> tuple[int, Problems]:
    """The Prometheus files together have each name with its labels once."""
    problems, count = [], 0
    for person in everything.people:
        if not list(person.exports.glob("*.prom")):
            # No run writes these files by itself: write them as a user would.
            for _, run, run_dir, _ in _newest([person]):
                output = person.exports / f"{run.profile}.prom"
                person.ask("export", str(run_dir), "--format", "prometheus", "-o", str(output))
        series, seen = Counter[str](), set[str]()
        for path in sorted(person.exports.glob("*.prom")):
            for line in path.read_text().splitlines():
                if line and not line.startswith("#"):
                    series[re.sub(r"\s+\S+$", "", line)] += 1
                    seen |= set(re.findall(r'profile="([^"]*)"', line))
        count += sum(series.values())
        problems += [f"{person.name}: {times} times {name}" for name, times in series.items() if times > 1]
        lacking = {run.profile for _, run, _, _ in _newest([person])} - seen
        problems += [f"{person.name}: no file has a value of {name}" for name in sorted(lacking)]
    return count, problems


def notified(everything: Everything) -> tuple[int, Problems]:
    """Every finished run sent exactly one notification."""
    problems, count = [], 0
    for person in everything.people:
        lines = person.notified.read_text().splitlines() if person.notified.exists() else []
        told = Counter(json.loads(line)["run_id"] for line in lines)
        for _, run, _, _ in _ended([person]):
            count += 1
            if told[run.run_id] != 1:
                problems.append(f"{person.name}, {run.run_id}: notified {told[run.run_id]} times")
    return count, problems


def pruned(everything: Everything) -> tuple[int, Problems]:
    """Prune keeps the newest runs, the baseline and the named runs, and nothing else."""
    problems, count = [], 0
    for person in everything.people:
        first, second, *_ = (run for _, run, _, _ in _ended([person]))
        person.ask("baseline", "set", first.run_id, "--results-dir", str(person.results))
        before = person.known()
        # The abandoned run has no summary; prune cannot know whether it is still measuring.
        unfinished = {run.run_id for _, run, run_dir in _opened([person]) if not (run_dir / RESULT_FILE).is_file()}
        newest = {run.run_id for _, run, _, _ in _newest([person])}
        expected = {*sorted(before)[-KEEP:], *newest, *unfinished, first.run_id, second.run_id}
        words = ["prune", "--results-dir", str(person.results), "--keep", str(KEEP), "--never", second.run_id]
        shown = person.ask(*words)
        if person.known() != before:
            problems.append(f"{person.name}: prune removed something without --yes")
        done = person.ask(*words, "--yes")
        left, count = person.known(), count + len(before)
        if shown.returncode or done.returncode:
            problems.append(f"{person.name}: prune ended with {done.returncode}: {done.stderr.strip()}")
        problems += [f"{person.name}: {run_id} is gone" for run_id in sorted(expected - left)]
        problems += [f"{person.name}: {run_id} is left" for run_id in sorted(left - expected)]
    return count, problems


def cleaned(everything: Everything) -> tuple[int, Problems]:
    """After clean.yml no run, part of a run or process is left on the nodes."""
    problems, count = [], 0
    for person in everything.people:
        for account in dict.fromkeys(person.accounts):
            count += 1
            given = ["-e", "clean_confirm=yes", "-e", "clean_older_than=0h"]
            done = person.play("clean", account, *given)
            if done.returncode:
                problems.append(
                    f"{person.name} as {account}: clean.yml ended with {done.returncode}: {done.stdout[-300:]}"
                )
    for account in sorted({account for person in everything.people for account in person.accounts}):
        home = Path(f"~{account}").expanduser()
        for pattern in (
            ".local/share/llm-benchmark/runs/**/*",
            ".local/share/llm-benchmark/.*.wheels/*",
            ".cache/huggingface/hub/*/blobs/*.incomplete",
            ".ansible/tmp/**/llm_datacenter_benchmark-*.whl",
        ):
            problems += [f"{account}: {path} is left" for path in sorted(home.glob(pattern)) if path.is_file()]
        problems += [f"{account}: {words} still runs" for words in _measuring(account)]
    return count, problems


def _measuring(account: str) -> Iterator[str]:
    """Yield the command lines of the account's running runs on the nodes."""
    import pwd

    uid = pwd.getpwnam(account).pw_uid
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if entry.stat().st_uid == uid and "-m benchmark run --order" in words and int(entry.name) != os.getpid():
                yield words.strip()
        except OSError:
            continue


def _last(log: Path) -> str:
    """Return the reason in a log: the last line with a reason, else the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["no output"]
    telling = [line for line in lines if line.startswith(("msg:", "fatal:", "[ERROR]"))] or lines
    return telling[-1][:300]


CHECKS: tuple[Callable[[Everything], tuple[int, Problems]], ...] = (
    nothing_lost,
    unique_ids,
    own_code,
    known_code,
    alone_on_a_node,
    in_history,
    csv_right,
    prometheus,
    notified,
    pruned,
    cleaned,
)
