"""Action `submission`: measure what a division asks for, one run of benchmark.yml after the other; write the tree."""

from __future__ import annotations

import os
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
from benchmark.cluster.submission.plan import Step, benchmark_of, measured, plan_step, plan_text, scenarios_of
from benchmark.cluster.submission.rules import DIVISIONS, Benchmark, Division
from benchmark.cluster.submission.system_file import read_system, write_template
from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError
from benchmark.settings import resolve_nodes

PLAYBOOK = CHECKOUT / "playbooks" / "benchmark.yml"


class ActionModule(NodeAction):
    """Runs once. In check mode the plan is told and nothing else is done."""

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
            self._child.wait()
        raise NodeFailure(f"{self.interruption}. What was measured is kept: the same command goes on from there.")

    def _make(self, play: Play) -> dict[str, Any]:
        division, benchmark = self._division(), benchmark_of(self._word("suite"))
        scenarios = scenarios_of(benchmark, self._names("scenarios"))
        again = set(self._names("again"))
        directory = self._results(play) / f"submission-{benchmark.suite}-{division}"
        places = {name: directory / name.lower() for name in scenarios}
        found = {name: measured(place, list(play.resolved), division) for name, place in places.items()}
        done = {name: known for name, known in found.items() if known is not None and name not in again}
        steps = self._steps(play, benchmark, division, scenarios, {name: rate for name, (_, rate) in done.items()})
        self._check(play, steps, division)
        for line in plan_text(steps, {name: run for name, (run, _) in done.items()}):
            Display().display(line)
        system, output = self._given(division)
        if self.check_mode:
            return {"changed": False, "tree": "", "complete": False}
        for step in steps:
            if step.scenario not in done:
                self._measure(play, step, places[step.scenario], division, step.scenario in again)
        return self._write([place / "latest" for place in places.values()], division, system, output)

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

    def _given(self, division: Division) -> tuple[Path, Path]:
        """Return where system.yml is and where the tree goes; what is wrong with them is told before hours of work."""
        if not self._word("submitter"):
            raise InputError(
                "submission_submitter is not set: give the organization's name, -e submission_submitter=NAME."
            )
        system = CHECKOUT / Path(self._word("system")).expanduser()
        output = CHECKOUT / Path(self._word("output")).expanduser()
        if output.exists():
            raise InputError(f"submission_output: {output} exists already; name a new directory.")
        if not system.exists():
            write_template(system)
            raise InputError(f"{system} was written: answer what it asks of the system, then give the command again.")
        read_system(system, 0, False)
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
        for name in scenarios:
            asked = [resolved.settings for resolved in play.resolved.values()]
            target = targets.get(name, str(asked[0].benchmark_target_qps))
            replicas = [one.benchmark_replicas for one in asked if one.benchmark_replicas != "auto"]
            stated = None if name == "SingleStream" else _rate(target, min(replicas, default=1))
            qps = rates.get(name) or stated or measured_qps
            steps.append(plan_step(benchmark, name, division, target, qps, profiles.get(name, "")))
        return steps

    def _check(self, play: Play, steps: list[Step], division: Division) -> None:
        """Raise InputError for what a later step's settings would be refused for, hours from now."""
        for step in steps:
            resolve_nodes({node: {**given, **_asked(step, division)} for node, given in play.given.items()})

    def _measure(self, play: Play, step: Step, place: Path, division: Division, again: bool) -> None:
        settings = next(iter(play.resolved.values())).settings
        variables: dict[str, object] = {
            "benchmark_results_dir": place,
            # What is wrong with a result stands in the list of what is missing, and the other steps are worth having.
            "benchmark_fail_on_invalid": "false",
        }
        if (place / "latest").exists() and not again:
            variables["benchmark_resume"] = "latest"  # which knows what the run was asked with
        else:
            variables |= _asked(step, division)
            variables["benchmark_timeout_s"] = step.timeout_s(settings.benchmark_timeout_s)
        words = self._words()
        for name, value in variables.items():
            words += ["-e", f"{name}={value}"]
        Display().display(f"{step.scenario}: into {place}")
        self._child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in self._child.stdout or ():
            Display().display(line.rstrip("\n"))
        if self._child.wait() != 0:
            raise NodeFailure(
                f"{step.scenario} was not measured on every node: see above. The same command goes on with this step; "
                f"-e submission_again={step.scenario} begins it anew."
            )

    def _words(self) -> list[str]:
        """Return this playbook's own command line for the other playbook: inventory, vault, -e and all."""
        own = set(context.CLIARGS.get("args") or ())
        beside = Path(sys.executable).parent / "ansible-playbook"
        program = str(beside) if beside.exists() else "ansible-playbook"
        return [program, *(str(PLAYBOOK) if word in own else word for word in sys.argv[1:])]

    def _write(self, runs: list[Path], division: Division, system: Path, output: Path) -> dict[str, Any]:
        words = [sys.executable, "-m", "benchmark", "submission", *map(str, runs), "--division", division]
        words += ["--submitter", self._word("submitter"), "--system", str(system), "--output", str(output)]
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
    asked |= {"benchmark_target_qps": step.target} if step.scenario != "SingleStream" else {}
    return asked | ({"benchmark_audit": TEST06} if division == "closed" else {})


def _rate(target: str, replicas: int) -> float | None:
    """Return a node's queries per second at a target; None where it is searched for. Raises InputError."""
    if target == "auto":
        return None
    try:
        return float(target) * replicas
    except ValueError:
        raise InputError(f"submission_target_qps has {target!r}: give queries/s of one GPU, or auto.") from None
