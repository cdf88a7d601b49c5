"""Action `node_reset`: show what the roles put on the node, or remove what of it was shown and confirmed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.provisioned import ENGINES

SCRIPT = CHECKOUT / "playbooks/files/reset.sh"
# Every file of an environment and of the cache is looked at, and removed: on a slow disk that takes minutes.
ANSWER_S = 1800
CONFIRM = "yes"
# Fields of a line, by the word that it begins with.
FIELDS = {"busy": 2, "remove": 4, "removed": 4, "leave": 3}


class ActionModule(NodeAction):
    """Arguments: none to look; to remove `paths` (what was shown) and `answer` (of the prompt or the command line)."""

    def act(self) -> dict[str, Any]:
        """Return `changed`, the `paths` that would go or are gone, and what to show of it (`told`)."""
        if "paths" not in self._task.args:
            lines = self._ask("look", [])
            return self._reported("would be removed", "remove", lines) | {"changed": self.check_mode and _any(lines)}
        if str(self._task.args.get("answer") or "").strip().lower() != CONFIRM:
            raise NodeFailure(
                "Nothing was removed, for nobody confirmed it: answer yes, or give -e reset_confirm=yes once you have "
                "seen the list (--check shows it alone)."
            )
        lines = self._ask("remove", [str(path) for path in self._task.args["paths"]])
        return self._reported("removed", "removed", lines) | {"changed": True}

    def _ask(self, mode: str, paths: list[str]) -> list[list[str]]:
        with_cache = boolean(self.setting("reset_hf_cache", False), strict=False)
        words = [mode, self.node, str(self.setting("benchmark_work_dir")), str(self.setting("hf_cache_dir"))]
        caches = ":".join(path for engine in ENGINES.values() for path in engine.caches)
        words += ["yes" if with_cache else "no", caches, str(self.setting("python_env_dir"))]
        words += [str(self.setting(f"{name}_dir")) for name in ENGINES]
        script = shlex.quote(SCRIPT.read_text(encoding="utf-8"))
        code, out, err = self.shell(
            f"sh -c {script} reset {shlex.join(words)}", stdin="\n".join(paths) + "\n", answer_s=ANSWER_S
        )
        lines = [line.split("\t") for line in out.splitlines()]
        lines = [line for line in lines if len(line) == FIELDS.get(line[0])]
        if code != 0:
            raise NodeFailure(f"The node could not be looked at ({code}): {' '.join(err.split())[-300:]}")
        for line in lines:
            if line[0] == "busy":
                raise NodeFailure(
                    f"Nothing is removed here: {line[1]}. Wait for its end, or stop it, and run this again."
                )
        return lines

    def _reported(self, how: str, word: str, lines: list[list[str]]) -> dict[str, Any]:
        taken = [line for line in lines if line[0] == word]
        total = sum(int(line[1]) for line in taken)
        reported = [f"{_size(total)} {how}"] if taken else ["nothing to remove"]
        reported += [f"{_size(int(kib)):>9}  {path} ({what})" for _, kib, path, what in taken]
        reported += [f"    stays  {line[1]}: {line[2]}" for line in lines if line[0] == "leave"]
        return {"paths": [line[2] for line in taken], "reported": reported}


def _any(lines: list[list[str]]) -> bool:
    return any(line[0] == "remove" for line in lines)


def _size(kib: int) -> str:
    size = kib * 1024
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
