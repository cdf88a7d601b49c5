"""Action `node_removal`: show what can be removed from a node, or remove what was shown and confirmed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import CHECKOUT, NodeAction, NodeFailure, is_no

from benchmark.cluster.ages import parse_age
from benchmark.errors import InputError
from benchmark.provisioned import ENGINES
from benchmark.rundir import NODES
from benchmark.text.figures import byte_size

SCRIPTS = CHECKOUT / "playbooks/files"
# Looking at and removing every file of an environment and the cache takes minutes on a slow disk.
ANSWER_S = 1800
OLDER_THAN = "30d"
# The number of fields in a line, by its first word.
FIELDS = {"busy": 2, "remove": 4, "removed": 4, "leave": 3}


class ActionModule(NodeAction):
    """Arguments: `what`, reset (all that the roles put there) or clean (leftovers).

    That alone only looks. To remove, also `paths` (as shown) and `answer` (of the prompt or the command line).
    Variables of the node: <what>_other_users, reset_hf_cache, clean_older_than.
    """

    def act(self) -> dict[str, Any]:
        """Return `changed`, the `paths` that would be or were removed, and the lines to show (`reported`)."""
        if "paths" not in self._task.args:
            lines = self._ask("look", self._fetched() if self.what == "clean" else [])
            would = any(line[0] == "remove" for line in lines)
            return self._reported("would be removed", "remove", lines) | {"changed": self.check_mode and would}
        answer = self._task.args.get("answer")
        if is_no(answer):
            return {"changed": False, "paths": [], "reported": ["Nothing was removed: the answer was no."]}
        if not _yes(answer):
            raise NodeFailure(
                f"Nothing was removed: it was not confirmed. Answer yes, or give -e {self.what}_confirm=yes once you "
                "have seen the list (--check only shows it)."
            )
        lines = self._ask("remove", [str(path) for path in self._task.args["paths"]])
        return self._reported("removed", "removed", lines) | {"changed": True}

    @property
    def what(self) -> str:
        """The name of the script: reset or clean."""
        return str(self._task.args["what"])

    def _ask(self, mode: str, listed: list[str]) -> list[list[str]]:
        others = "yes" if _yes(self.setting(f"{self.what}_other_users")) else "no"
        words = [mode, self.node, str(self.setting("benchmark_work_dir")), str(self.setting("hf_cache_dir")), others]
        words += [*self._further(), *self._environments()]
        texts = [(SCRIPTS / f"{name}.sh").read_text(encoding="utf-8") for name in ("removal", self.what)]
        code, out, err = self.shell(
            f"sh -c {shlex.quote(''.join(texts))} {self.what} {shlex.join(words)}",
            stdin="\n".join(listed) + "\n",
            answer_s=ANSWER_S,
        )
        lines = [line.split("\t") for line in out.splitlines()]
        lines = [line for line in lines if len(line) == FIELDS.get(line[0])]
        if code != 0:
            raise NodeFailure(f"The node could not be examined ({code}): {' '.join(err.split())[-300:]}")
        for line in lines:
            if line[0] == "busy":
                raise NodeFailure(
                    f"Nothing was removed here: {line[1]}. Wait until that ends, or stop it, and run this again."
                )
        return lines

    def _environments(self) -> list[str]:
        """Return the directories of environments that the roles made, without existing environments of the user."""
        made = [role for role in ("python_env", *ENGINES) if self.setting(f"{role}_manage")]
        own = [] if "python_env" in made else [str(self.setting("python_env_code_dir"))]
        return [*own, *(str(self.setting(f"{role}_dir")) for role in made)]

    def _further(self) -> list[str]:
        if self.what == "reset":
            caches = ":".join(path for engine in ENGINES.values() for path in engine.caches)
            return ["yes" if _yes(self.setting("reset_hf_cache")) else "no", caches]
        try:
            minutes = parse_age(str(self.setting("clean_older_than", OLDER_THAN)), "clean_older_than") // 60
        except InputError as error:
            raise NodeFailure(str(error)) from error
        model, dataset = (str(self.setting(name)) for name in ("benchmark_model", "hf_cache_dataset"))
        repositories = f"models--{model.replace('/', '--')} datasets--{dataset.replace('/', '--')}"
        return [str(minutes), repositories, str(self.setting("ansible_remote_tmp", "~/.ansible/tmp"))]

    def _fetched(self) -> list[str]:
        """Return the runs of which this node's result is on the controller."""
        results = CHECKOUT / Path(str(self.setting("benchmark_results_dir"))).expanduser()
        found = results.glob(f"*/{NODES}/{self.node}/mlperf_datacenter_{self.node}_*.json")
        return sorted({path.parents[2].name for path in found})

    def _reported(self, how: str, word: str, lines: list[list[str]]) -> dict[str, Any]:
        taken = [line for line in lines if line[0] == word]
        total = sum(int(line[1]) for line in taken)
        reported = [f"{byte_size(total * 1024)} {how}"] if taken else ["nothing to remove"]
        reported += [f"{byte_size(int(kib) * 1024):>9}  {path} ({what})" for _, kib, path, what in taken]
        reported += [f"    stays  {line[1]}: {line[2]}" for line in lines if line[0] == "leave"]
        return {"paths": [line[2] for line in taken], "reported": reported}


def _yes(given: Any) -> bool:
    return bool(boolean(given, strict=False)) if given is not None else False
