"""Test everyday use: two users, two checkouts, three profiles, many runs, over real sshd on loopback.

Both users begin each pair of runs in the same second, as two timers would. They log in to the nodes alternately with
their own accounts and with a shared one. Now and then a controller is killed, and its run is resumed or abandoned. To a
run each node looks like a separate machine: it has CPUs and a /tmp of its own, so that runs wait for each other. The
engine is the simulated one, and the two checkouts differ, so that a result shows whose code measured. At the end
everything is checked (everyday_checks.py), and the project's own cleaning commands are tested. Exit code 1: something
is wrong.

Needs root: it makes three accounts and mount namespaces, and removes them at its end.

    python3 -m benchmarks.everyday [--runs 40] [--set NAME=VALUE] [--python PATH] [--keep DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmark.settings import Settings
from benchmarks.everyday_checks import Everything, check_all
from benchmarks.everyday_people import EXPORTS, LIMIT_S, Person, Run
from benchmarks.farm import address, end_masters, tree
from tests.integration.ssh_nodes import CHECKOUT, Cluster, SshNode

NODES = ("node1", "node2")
# Index of the first address in farm.py; no other measurement has nodes there.
FIRST_ADDRESS = 50_000
# Gives each node its own /tmp, so that no other node sees a run's locks there.
OWN_TMP = "mount -t tmpfs -o mode=1777 none /tmp"
# Numbers of each person's runs whose controllers are killed while measuring: one is resumed, one abandoned.
KILLED_AND_RESUMED, KILLED = 3, 5
# The line of the engine that is extended so that a result shows whose code measured.
MARK = '"slowdown": self._slowdown'


def profile(name: str, samples: int, tokens: int) -> dict[str, Any]:
    """Return a profile whose answers take 20 ms plus 2 ms per token."""
    return {
        "name": name,
        "version": 1,
        "kind": "self-test",
        "scenario": "closed_loop",
        "engine": "simulated",
        "engine_options": {"ttft_ms": 20, "tpot_ms": 2},
        "dataset": "curated",
        "samples": samples,
        "warmup": 1,
        "generation": {"max_new_tokens": tokens, "min_new_tokens": tokens},
        "limits": [{"metric": "queries.failed", "at_most": 0}],
    }


PROFILES = {
    one["name"]: one
    for one in (profile("everyday-short", 40, 8), profile("everyday-chat", 20, 32), profile("everyday-long", 20, 64))
}


def work_through(person: Person, plan: list[Run], together: threading.Barrier) -> None:
    """Make a person's runs one after the other, each begun in the same second as the other person's."""
    for run in plan:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(LIMIT_S)
        before = person.known()
        began = time.monotonic()
        given = ["-e", f"benchmark_profile={person.place.parent}/profiles/{run.profile}.yaml"]
        if run.number % 2:
            words = person.python_m(
                "ci", "--inventory", str(person.inventory(run.account)), "--policy", "nodes", *given
            )
        else:
            words = person.words(
                "ansible-playbook", "playbooks/benchmark.yml", "-i", str(person.inventory(run.account)), *given
            )
        killed = run.number in (KILLED_AND_RESUMED, KILLED)
        run.code = _do(person, run, words, before, kill=killed)
        new = sorted(person.known() - before)
        run.run_id = new[-1] if new else ""
        if killed:
            run.fate = "abandoned"
        if run.number == KILLED_AND_RESUMED and run.run_id:
            run.fate = "resumed"
            run.code = _do(person, run, [*words, "-e", f"benchmark_resume={run.run_id}"], before, kill=False)
        person.runs.append(run)
        print(
            f"{person.name} {run.number + 1:>2}/{len(plan)} {run.profile:<15} as {run.account:<12} {run.fate:<9} "
            f"exit code {run.code}, {time.monotonic() - began:.0f} s  {run.run_id or 'no run was opened'}",
            flush=True,
        )


def _do(person: Person, run: Run, words: list[str], before: set[str], kill: bool) -> int | None:
    """Run a command; with `kill`, end all of the controller's processes as soon as a node has a sample."""
    with run.log.open("a") as log:
        process = subprocess.Popen(
            words, cwd=person.checkout, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < deadline:
            if kill and any(_measures(run.account, run_id) for run_id in person.known() - before):
                _kill(process)
            time.sleep(0.05)
        if process.poll() is None:
            _kill(process)
        return process.wait()


def _measures(account: str, run_id: str) -> bool:
    runs = Path(f"~{account}").expanduser() / ".local/share/llm-benchmark/runs" / run_id
    return any(path.stat().st_size for path in runs.glob("*/samples.jsonl"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants here; processes on the nodes descend from sshd and go on."""
    for pid in tree(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def accounts(place: Path) -> Iterator[dict[str, str]]:
    """Make the accounts of a and b and a shared one, yield their names, and remove them again."""
    names = {who: f"everyday{os.getpid() % 10_000}{who[0]}" for who in ("a", "b", "shared")}
    try:
        for who, name in names.items():
            # "*": no password, but not locked: sshd refuses locked accounts.
            words = [
                "useradd",
                "--create-home",
                "--home-dir",
                str(place / who),
                "--shell",
                "/bin/bash",
                "-p",
                "*",
                name,
            ]
            subprocess.run(words, check=True)
            (place / who).chmod(0o755)
        yield names
    finally:
        for name in names.values():
            for pid in processes_of(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def processes_of(account: str) -> list[int]:
    """Return the processes of one of the accounts made here."""
    import pwd

    uid, found = pwd.getpwnam(account).pw_uid, []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == uid:
                found.append(int(entry.name))
    return found


def controllers_python(place: Path, account: str) -> Path:
    """Return a Python with the controller's packages, made from a Python that the account may use."""
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        found = Path(candidate)
        usable = (
            found.exists()
            and not subprocess.run(
                [
                    "runuser",
                    "-u",
                    account,
                    "--",
                    str(found),
                    "-c",
                    "import sys, venv; sys.exit(sys.version_info < (3, 11))",
                ],
                capture_output=True,
                check=False,
            ).returncode
        )
        if usable:
            break
    else:
        raise SystemExit("Found no Python 3.11 with venv that other accounts may use.")
    print(f"The controllers' environment is made from {found}.", flush=True)
    subprocess.run([str(found), "-m", "venv", str(place / "controller")], check=True)
    python = place / "controller" / "bin" / "python3"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-qq", "-r", str(CHECKOUT / "requirements.txt")], check=True, cwd=place
    )
    return python


def make_person(
    who: str, names: dict[str, str], place: Path, python: Path, cluster: Cluster, more: list[str]
) -> Person:
    """Clone this checkout for a person, mark its code as theirs, and write an inventory for each account."""
    person = Person(who, names[who], (names[who], names["shared"]), place / who, python)
    person.place.mkdir(exist_ok=True)
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(CHECKOUT), str(person.checkout)], check=True)
    engine = person.checkout / "benchmark/node/engines/simulated.py"
    text = engine.read_text()
    if MARK not in text:
        raise SystemExit(f"{engine} has no {MARK}: this script adds the code's owner there.")
    engine.write_text(text.replace(MARK, f'{MARK}, "whose": "{who}"'))
    for directory in (person.results, person.exports, person.place / "logs", person.place / "cp"):
        directory.mkdir()
    key, known_hosts = person.place / "key", person.place / "known_hosts"
    shutil.copy(cluster.key, key)
    shutil.copy(cluster.known_hosts, known_hosts)
    key.chmod(0o600)
    append = f"sh -c 'tr -d \"\\n\" >> {person.notified}; echo >> {person.notified}'"
    variables: dict[str, Any] = {
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes",
        "benchmark_device": "cpu",
        "benchmark_dtype": "float32",
        "benchmark_model": str(place / "model"),
        "benchmark_timeout_s": 180,
        # With so much else running on this machine the verdict is not tested.
        "benchmark_fail_on_invalid": False,
        "benchmark_notify": append,
        "python_env_python": str(python.resolve()),
        "python_env_requirements": "tests/data/requirements-light.txt",
        "python_env_min_free_gb": 0.1,
        "hf_cache_source": "none",
        "node_environment": {"PIP_COMPILE": "0"},
    }
    if "benchmark_prometheus_dir" in Settings.model_fields:
        variables["benchmark_prometheus_dir"] = EXPORTS
    variables |= {name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in more)}
    for account in person.accounts:
        cluster.inventory(person.inventory(account), {**variables, "ansible_user": account})
    subprocess.run(["chown", "-R", person.account, str(person.place)], check=True)
    return person


def main() -> int:
    """Set up, make the runs, check, clean, check again; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=40, help="runs of both people together")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for all runs")
    parser.add_argument(
        "--python",
        type=Path,
        metavar="PATH",
        help="Python of the controllers, usable by all accounts; default: one is made",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="use this new directory and keep it")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("this makes accounts and mount namespaces: run it as root")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < len(NODES):
        parser.error(f"each of the {len(NODES)} nodes needs a CPU of its own, but there are only {len(cpus)}")
    place = arguments.keep.resolve() if arguments.keep else Path(tempfile.mkdtemp(prefix="everyday.", dir="/var/tmp"))
    if place.is_relative_to("/tmp"):  # noqa: S108 # the directory of that name
        parser.error("each node has its own /tmp and would not see this directory: choose one elsewhere")
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    (place / "profiles").mkdir()
    for name, content in PROFILES.items():
        (place / "profiles" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (place / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (place / "model" / name).write_text("{}")
    (place / "nodes").mkdir()
    cluster = Cluster(place / "nodes")
    people: list[Person] = []
    try:
        with accounts(place) as names:
            for number, name in enumerate(NODES):
                apart = f"{OWN_TMP}; taskset -pc {cpus[number]} $$ > /dev/null"
                cluster.join(SshNode(name, address(FIRST_ADDRESS + number), cluster.directory / name, before=apart))
            python = arguments.python or controllers_python(place, names["a"])
            people = [make_person(who, names, place, python, cluster, arguments.set) for who in ("a", "b")]
            together = threading.Barrier(len(people))
            threads = [
                threading.Thread(target=work_through, args=(one, _plan(one, arguments.runs // 2), together))
                for one in people
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return check_all(Everything(people, PROFILES, NODES))
    finally:
        for person in people:
            end_masters(person.place / "cp")
        cluster.stop()
        if not arguments.keep:
            shutil.rmtree(place, ignore_errors=True)


def _plan(person: Person, count: int) -> list[Run]:
    names = list(PROFILES)
    return [
        Run(
            number,
            names[number % len(names)],
            person.accounts[number // 2 % 2],
            person.place / "logs" / f"{number}.txt",
        )
        for number in range(count)
    ]


if __name__ == "__main__":
    sys.exit(main())
