"""Action `submission`: measure what a division asks for, one run of benchmark.yml after the other; write the tree."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context
from ansible.utils.display import Display
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import Play, resolve_play

from benchmark.audit import TEST06
from benchmark.cluster.one_system import is_system
from benchmark.cluster.submission.plan import Begun, Step, begun, benchmark_of, plan_step, plan_text, scenarios_of
from benchmark.cluster.submission.rules import DIVISIONS, Benchmark, Division, check_submitter
from benchmark.cluster.submission.system_file import read_system, write_template
from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError
from benchmark.resolve import resolve_nodes

# Engines whose node may have no GPU, whatever benchmark_device says.
WITHOUT_GPUS = ("endpoint", "simulated")
PLAYBOOK = CHECKOUT / "playbooks" / "benchmark.yml"


class ActionModule(NodeAction):
    """Runs once. In check mode the plan is reported and nothing else is done."""

    _requires_connection = False
    _child: subprocess.Popen[str] | None = None

    def act(self) -> dict[str, Any]:
        """Return the finished tree as `tree`, and whether nothing is missing as `complete`."""
        play = resolve_play(self.task_vars, self._loader)
        try:
            return self._make(play)
        except InputError as error:
            raise NodeFailure(str(error)) from error

    def after_interruption(self) -> dict[str, Any]:
        """Let the step's own playbook end, which fetches what there is; the next call goes on with that step."""
        if self._child is not None:
            # To its end: a child whose output nobody reads stands still once a pipe is full.
            self._relay(self._child)
            self._child.wait()
        raise NodeFailure(f"{self.interruption}. What was measured is kept: the same command goes on from there.")

    def _make(self, play: Play) -> dict[str, Any]:
        if is_system(play.resolved):
            raise InputError(
                "benchmark_system is cluster, and a submission's tree has the system of one node each: set it to node."
            )
        division, benchmark = self._division(), benchmark_of(self._word("suite"))
        scenarios = scenarios_of(benchmark, self._names("scenarios"))
        again = set(self._names("again"))
        if unknown := sorted(again - set(scenarios)):
            raise InputError(f"submission_again names {', '.join(unknown)}: the steps are {', '.join(scenarios)}.")
        directory = self._results(play) / f"submission-{benchmark.suite}-{division}"
        places = {name: directory / name.lower() for name in scenarios}
        found = {name: begun(places[name], list(play.resolved), division) for name in scenarios if name not in again}
        runs = {name: known for name, known in found.items() if known is not None}
        steps = self._steps(play, benchmark, division, scenarios, {name: run.qps for name, run in runs.items()})
        self._check(play, steps, division)
        for line in plan_text(steps, runs):
            Display().display(line)
        system, output = self._given(play)
        if self.check_mode:
            return {"changed": False, "tree": "", "complete": False}
        for step in steps:
            run = runs.get(step.scenario)
            if run is None or run.left:
                self._measure(play, step, places[step.scenario], division, run)
        return self._write(play, [place / "latest" for place in places.values()], division, system, output)

    def _division(self) -> Division:
        for division in DIVISIONS:
            if self._word("division") == division:
                return division
        raise InputError(f"submission_division is {self._word('division')!r}: give {' or '.join(DIVISIONS)}.")

    def _word(self, name: str) -> str:
        return str(self._task.args.get(name) or "")

    def _names(self, argument: str) -> list[str]:
        """Return a list, or the words of a text with commas: what -e can give."""
        given = self._task.args.get(argument) or []
        words = given.split(",") if isinstance(given, str) else given
        return [str(word).strip() for word in words]

    def _by_scenario(self, argument: str, variable: str, benchmark: Benchmark) -> dict[str, str]:
        given = self._task.args.get(argument) or {}
        if not isinstance(given, dict) or set(given) - set(benchmark.profiles):
            raise InputError(
                f"{variable} is {given!r}: give a value for each of {', '.join(benchmark.profiles)}, such as "
                f'-e \'{{"{variable}": {{"Offline": 12}}}}\'.'
            )
        return {str(name): str(value) for name, value in given.items()}

    def _results(self, play: Play) -> Path:
        settings = next(iter(play.resolved.values())).settings
        return CHECKOUT / Path(settings.benchmark_results_dir).expanduser()

    def _given(self, play: Play) -> tuple[Path, Path]:
        """Return where system.yml is and where the tree goes; refuse them before hours of work."""
        if not self._word("submitter"):
            raise InputError(
                "submission_submitter is not set: give the organization's name, -e submission_submitter=NAME."
            )
        check_submitter(self._word("submitter"), "submission_submitter")
        system = CHECKOUT / Path(self._word("system")).expanduser()
        output = CHECKOUT / Path(self._word("output")).expanduser()
        if output.exists() or output.is_symlink():
            raise InputError(f"submission_output: {output} exists already; name a new directory.")
        if not system.exists() and self.check_mode:
            Display().warning(f"{system} is not there: without --check it is written, to be answered before the rest.")
            return system, output
        if not system.exists():
            write_template(system)
            raise InputError(f"{system} was written: fill in its answers about the system, then run the command again.")
        # What the node's own GPUs make the tree ask for; how they are connected to the host, only the runs can tell.
        asked = list(play.resolved.values())
        on_gpus = any(
            one.settings.benchmark_device == "cuda" and one.profile.engine not in WITHOUT_GPUS for one in asked
        )
        read_system(system, int(on_gpus), True)
        return system, output

    def _steps(
        self,
        play: Play,
        benchmark: Benchmark,
        division: Division,
        scenarios: tuple[str, ...],
        rates: dict[str, float | None],
    ) -> list[Step]:
        targets = self._by_scenario("targets", "submission_target_qps", benchmark)
        profiles = self._by_scenario("profiles", "submission_profiles", benchmark)
        measured_qps = next((rate for rate in rates.values() if rate), None)
        steps = []
        asked = [resolved.settings for resolved in play.resolved.values()]
        replicas = min((one.benchmark_replicas for one in asked if one.benchmark_replicas != "auto"), default=1)
        for name in scenarios:
            # Without a target of the step's own, each node has that of the inventory.
            given = targets.get(name, "")
            wanted = {given or str(one.benchmark_target_qps) for one in asked} if name != "SingleStream" else set()
            each = [_rate(target, replicas) for target in wanted]
            stated = min((rate for rate in each if rate), default=None) if None not in each else None
            qps = rates.get(name) or stated or measured_qps
            search = "auto" in wanted
            steps.append(plan_step(benchmark, name, division, given, qps, profiles.get(name, ""), search))
        return steps

    def _check(self, play: Play, steps: list[Step], division: Division) -> None:
        """Raise InputError for what a later step's settings would be refused for, hours from now."""
        for step in steps:
            resolve_nodes({node: {**given, **_asked(step, division)} for node, given in play.given.items()})

    def _measure(self, play: Play, step: Step, place: Path, division: Division, run: Begun | None) -> None:
        settings = next(iter(play.resolved.values())).settings
        variables: dict[str, object] = {
            "benchmark_results_dir": place,
            # What is wrong with a result stands in the list of what is missing, and the other steps are worth having.
            "benchmark_fail_on_invalid": "false",
        }
        # Also where a run is resumed, which refuses what it was not asked with.
        variables |= _asked(step, division)
        if run is not None:
            variables["benchmark_resume"] = run.run_id
        else:
            variables["benchmark_timeout_s"] = step.timeout_s(settings.benchmark_timeout_s)
        words = self._words()
        for name, value in variables.items():
            words += ["-e", f"{name}={shlex.quote(str(value))}"]
        Display().display(f"{step.scenario}: into {place}")
        self._child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._relay(self._child)
        if self._child.wait() != 0:
            raise NodeFailure(
                f"{step.scenario} was not measured on every node: see above. The same command without submission_again "
                f"goes on with this step; -e submission_again={step.scenario} begins it anew."
            )

    def _relay(self, child: subprocess.Popen[str]) -> None:
        """Print what the child prints, until it closes its output."""
        for line in child.stdout or ():
            Display().display(line.rstrip("\n"))

    def _words(self) -> list[str]:
        """Return this playbook's own command line for the other playbook: inventory, vault, -e and all."""
        own = set(context.CLIARGS.get("args") or ())
        beside = Path(sys.executable).parent / "ansible-playbook"
        program = str(beside) if beside.exists() else "ansible-playbook"
        return [program, *(str(PLAYBOOK) if word in own else word for word in sys.argv[1:])]

    def _write(self, play: Play, runs: list[Path], division: Division, system: Path, output: Path) -> dict[str, Any]:
        words = [sys.executable, "-m", "benchmark", "submission", *map(str, runs), "--division", division]
        words += ["--submitter", self._word("submitter"), "--system", str(system), "--output", str(output)]
        # The play's alone: a node that --limit leaves out may lack a scenario, and a system with a gap is refused.
        words += [word for node in play.resolved for word in ("--node", node)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (EXIT_VALID, EXIT_INVALID):
            raise NodeFailure(done.stderr.strip() or f"The tree ended with exit code {done.returncode}.")
        for line in done.stdout.splitlines():
            Display().display(line)
        return {"changed": True, "tree": str(output), "complete": done.returncode == EXIT_VALID}


def _asked(step: Step, division: Division) -> dict[str, object]:
    """Return the settings that make a step's run."""
    asked: dict[str, object] = {"benchmark_profile": step.profile, "benchmark_accuracy": "with-performance"}
    asked |= {"benchmark_target_qps": step.target} if step.target and step.scenario != "SingleStream" else {}
    return asked | ({"benchmark_audit": TEST06} if division == "closed" else {})


def _rate(target: str, replicas: int) -> float | None:
    """Return a node's queries per second at a target; None where it is searched for. Raises InputError."""
    if target == "auto":
        return None
    try:
        return float(target) * replicas
    except ValueError:
        raise InputError(f"submission_target_qps has {target!r}: give queries/s of one GPU, or auto.") from None
