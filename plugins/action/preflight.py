"""Action `preflight`: examine the node in one round trip, and report every problem at once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.utils.display import Display
from environment_action import made_of
from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.cluster.gpu_health import Wanted
from benchmark.cluster.machines import Machine
from benchmark.cluster.packages.environments import existing_environment, interpreter, with_find
from benchmark.cluster.packages.wheelhouse import load, on_controller
from benchmark.cluster.preflight import EngineNeeds, Needs, Probe, gpus, problems, warnings
from benchmark.errors import InputError
from benchmark.node.hub.cache import COMMIT
from benchmark.option_models import SERVED, WITH_FILE
from benchmark.provisioned import ENGINES
from benchmark.settings.measurement import is_directory_path
from benchmark.visible_devices import NAME as VISIBLE

PROBE = CHECKOUT / "roles/preflight/files/probe.sh"
DIRECTORY = CHECKOUT / "roles/hf_cache/files/directory.sh"


class ActionModule(NodeAction):
    """Raises NodeFailure with one sentence per line if the node is unfit; changes nothing."""

    def act(self) -> dict[str, Any]:
        """Return the node's GPUs and Python version."""
        probed = self.task_vars.get("preflight_probe") or {}
        if reason := probed.get("failures", {}).get(self.node):
            raise NodeFailure(reason)
        needs, command = self._needs
        code, out, err = self.shell(command)
        if code != 0:
            raise NodeFailure(f"The node could not be examined: {' '.join((err or out).split())[-300:]}")
        return self._judge(needs, out)

    def questions(self) -> list[str]:
        """Return the command that examines the node."""
        return [self._needs[1]]

    def settled(self, answers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the same from the answers; None if the node did not answer."""
        needs, command = self._needs
        return self._judge(needs, answers[command]) if command in answers else None

    def machine(self, answers: Mapping[str, str]) -> Machine | None:
        """Return the identity of the node's machine; None if it did not answer."""
        command = self._needs[1]
        if command not in answers:
            return None
        return Machine.of(
            Probe.parse(answers[command]),
            self.device,
            self._visible(),
            bool(self.setting("benchmark_shared_machine")),
        )

    def _visible(self) -> str | None:
        """Return CUDA_VISIBLE_DEVICES for the node's run; None: not set."""
        value = (self.setting("benchmark_environment") or {}).get(VISIBLE)
        return None if value is None else str(value)  # YAML reads a single GPU as a number

    def _judge(self, needs: Needs, out: str) -> dict[str, Any]:
        probe = Probe.parse(out)
        if found := problems(probe, needs):
            raise NodeFailure("\n".join(found))
        for sentence in warnings(probe, needs):
            Display().warning(f"{self.node}: {sentence}")
        return {"changed": False, "gpus": gpus(probe), "python": probe.values["python"]}

    @cached_property
    def _needs(self) -> tuple[Needs, str]:
        """What the node needs, and the command that examines it; cached, since variables are templates."""
        model, source = str(self.setting("benchmark_model")), str(self.setting("hf_cache_source"))
        loaded = self.profile.needs_model
        own = loaded and is_directory_path(model)
        fetched = loaded and source != "none" and not is_directory_path(model)
        needs = Needs(
            device=self.device,
            python=interpreter("python_env", self.setting),
            env_dir=self._place("python_env"),
            env_gb=self._size_gb("python_env"),
            existing=existing_environment("python_env", self.setting),
            cache_dir=str(self.setting("hf_cache_dir")),
            weights_gb=float(self.setting("hf_cache_min_free_gb")) if fetched else 0,
            engine=self._engine(),
            absent_model="" if fetched or own or not loaded else model,
            gpus=Wanted(
                self._visible(),
                int(self.setting("preflight_gpus")),
                sick_fails=self.setting("preflight_sick_gpus") == "fail",
            ),
            trace=str(self.setting("benchmark_dataset_path")) if self.profile.dataset == "trace" else "",
        )
        revision = str(self.setting("benchmark_model_revision"))
        repository = f"{needs.cache_dir}/hub/models--{model.replace('/', '--')}"
        # For a branch or tag, the cache records its commit under refs.
        snapshot = f"{repository}/{'snapshots' if COMMIT.fullmatch(revision) else 'refs'}/{revision}"
        place = f"directory:{model}" if own else snapshot
        words = [needs.python, needs.env_dir, self._fingerprint("python_env"), needs.cache_dir, place, needs.device]
        if needs.engine:
            words += [needs.engine.python, needs.engine.env_dir, self._fingerprint(needs.engine.engine.name)]
        script = f"model_directory() (\n{DIRECTORY.read_text('utf-8')})\n{with_find(PROBE.read_text('utf-8'))}"
        files = "\n".join(f"{name}\t{path}" for name, path in self._files().items())
        return needs, shlex.join(["sh", "-c", f"PREFLIGHT_FILES={shlex.quote(files)}\n{script}", "probe", *words])

    def _files(self) -> dict[str, str]:
        """Return the files on the node that the run will read, by setting, without settings that have no effect."""
        read = {
            "benchmark_dataset_path": self.profile.dataset in WITH_FILE,
            "benchmark_endpoint_ca_file": self.profile.engine == SERVED,
        }
        return {name: str(self.setting(name)) for name, wanted in read.items() if wanted and self.setting(name)}

    def _fingerprint(self, role: str) -> str:
        try:
            return made_of(self, role)[1]
        except NodeFailure:  # the role itself reports it
            return ""

    def _engine(self) -> EngineNeeds | None:
        """Return the needs of the engine that is provisioned on this node; None: there is none."""
        wanted = self.task_vars.get("preflight_settings", {}).get("engines", {})
        for name, engine in ENGINES.items():
            if gpus_of_a_copy := wanted.get(name, {}).get(self.node):
                return EngineNeeds(
                    engine,
                    python=interpreter(name, self.setting),
                    env_dir=self._place(name),
                    env_gb=self._size_gb(name),
                    locked=engine.lock_of(str(self.setting(f"{name}_requirements"))) is not None,
                    gpus=int(gpus_of_a_copy),
                    existing=existing_environment(name, self.setting),
                )
        return None

    def _place(self, role: str) -> str:
        """Return the directory of the role's environment; for an existing one, that of our own code."""
        existing = existing_environment(role, self.setting)
        return str(self.setting(f"{role}_{'code_' if existing and role == 'python_env' else ''}dir"))

    def _size_gb(self, role: str) -> float:
        """Return the disk space in GB that a new environment needs; 0 for an existing one."""
        if existing_environment(role, self.setting):
            return 0
        return float(self.setting(f"{role}_min_free_gb")) + self._wheels_gb(f"{role}_wheelhouse")

    def _wheels_gb(self, wheelhouse: str) -> float:
        """Return the disk space in GB that the wheels for a new environment take at most."""
        given = str(self.setting(wheelhouse))
        try:
            return load(on_controller(CHECKOUT, given)).size / 1e9 if given else 0
        except InputError as error:
            raise NodeFailure(str(error)) from error
