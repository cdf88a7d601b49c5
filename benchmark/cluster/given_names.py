"""Variables that are set but never read: most are a setting's name, misspelled or without its prefix.

A misspelled name with a setting's prefix (benchmark_profil) is refused with the settings; these are the others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmark.provisioned import PROVISIONING_ROLES
from benchmark.settings import Settings
from benchmark.variables import VARIABLES

# Variables that the playbooks read besides the settings, by the playbook whose name is their prefix.
OF_PLAYBOOKS = (
    *("node_environment", "example_nodes", "run", "trust_fingerprints"),
    *("reset_confirm", "reset_hf_cache", "reset_other_users"),
    *("clean_confirm", "clean_older_than", "clean_other_users"),
    *("submission_submitter", "submission_division", "submission_suite", "submission_scenarios"),
    *("submission_target_qps", "submission_profiles", "submission_again", "submission_system", "submission_output"),
)
SETTINGS = (*Settings.model_fields, *(variable.name for variable in VARIABLES))
KNOWN = frozenset((*SETTINGS, *OF_PLAYBOOKS))
# Names with these prefixes are checked with the settings, and by Ansible.
ROLES = ("benchmark", *PROVISIONING_ROLES)
CHECKED = ("ansible_", *(f"{role}_" for role in ROLES))
# Similarity of a name and the one that was meant; a less similar name is a user's own.
ALIKE = 0.85
_TEMPLATE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)


def meant(name: str) -> list[str]:
    """Return the names that `name` probably misspells; mostly none."""
    if name in KNOWN or name.startswith(CHECKED):
        return []
    plain = name.lower().replace("-", "_")
    if plain in KNOWN:
        return [plain]
    own = [f"{role}_{plain}" for role in ROLES if f"{role}_{plain}" in KNOWN]
    if without := own or [setting for setting in SETTINGS if setting.endswith(f"_{plain}")]:
        return without
    return difflib.get_close_matches(plain, KNOWN, n=1, cutoff=ALIKE)


def unread(names: Iterable[str], values: Iterable[Any]) -> Iterator[str]:
    """Yield a sentence for each name that is probably a mistake.

    `values`: those of all variables, not templated; a variable that a template among them uses is a user's own.
    """
    suspects = {name: found for name in sorted(set(names)) if (found := meant(name))}
    used = set(_used(list(values))) if suspects else set()
    for name, found in suspects.items():
        if name not in used:
            last = f" or {found[-1]}" if len(found) > 1 else ""
            words = ", ".join(found[:-1]) + last if last else found[0]
            yield f"{name} is not a setting, and nothing reads it: did you mean {words}?"


def _used(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            for template in _TEMPLATE.findall(value):
                yield from re.findall(r"\w+", template)
        elif isinstance(value, dict):
            yield from _used(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _used(value)


def files_of_nobody(sources: Iterable[str], groups: Iterable[str], hosts: Iterable[str]) -> list[str]:
    """Return a sentence for each file of variables whose group or host is in none of the inventories beside it."""
    found = []
    for kind, known in (("group", {*groups, "all"}), ("host", {*hosts})):
        for directory in sorted({_beside(source) / f"{kind}_vars" for source in sources}):
            for path in sorted(directory.iterdir()) if directory.is_dir() else ():
                name = path.name if path.is_dir() else path.stem
                if path.suffix in ("", ".yml", ".yaml", ".json") and not name.startswith(".") and name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f": did you mean {close[0]}?" if close else "."
                    found.append(f"{path} has no effect: the inventory has no {kind} {name}{hint}")
    return found


def _beside(source: str) -> Path:
    path = Path(source)
    return path if path.is_dir() else path.parent
