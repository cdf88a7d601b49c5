"""Settings of the whole run in the inventory, for commands that run outside a playbook."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.cluster.names import some
from benchmark.cluster.utf8_locale import utf8_locale
from benchmark.errors import InputError
from benchmark.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
GROUP = "gpu_nodes"
RESULTS_DIR = "benchmark_results_dir"
PROMETHEUS_DIR = "benchmark_prometheus_dir"
DEFAULT = str(Settings.model_fields[RESULTS_DIR].default)


def no_node(groups: Mapping[str, Sequence[str]], sources: Sequence[str]) -> str:
    """Return what to do about an inventory without nodes; `groups`: its groups and their hosts."""
    own = {name: hosts for name, hosts in groups.items() if name not in ("all", "ungrouped", GROUP) and hosts}
    where = ", ".join(sources) or "the inventory"
    if close := difflib.get_close_matches(GROUP, own, n=1):
        hosts = own[close[0]]
        return (
            f"The group {GROUP} is empty. {where} has a group {close[0]} ({some(hosts)}): did you mean {GROUP}? "
            "Give it that name."
        )
    if hosts := groups.get("all", ()):
        return (
            f"The group {GROUP} is empty, and {where} lists {some(hosts)}: put the nodes to be measured under "
            f"{GROUP}, as in inventory/hosts.example.yml."
        )
    own_file = str(CHECKOUT / "inventory/hosts.yml")
    given = [source for source in sources if source not in (own_file, "inventory/hosts.yml")]
    if not given:
        return (
            f"The group {GROUP} is empty: copy inventory/hosts.example.yml to inventory/hosts.yml and list your nodes "
            "there, or give your inventory with -i."
        )
    absent = [source for source in given if "," not in source and not Path(source).exists()]
    if absent:
        return f"{', '.join(absent)}: there is no such inventory (-i), and so the group {GROUP} is empty."
    return (
        f"The group {GROUP} is empty: {', '.join(given)} lists no hosts. List your nodes there under {GROUP}, as in "
        "inventory/hosts.example.yml."
    )


def directory_in(name: str, values: Sequence[object]) -> Path | None:
    """Return the directory in a setting of the whole run, from the nodes' values; by default the setting's default.

    A relative path is relative to the checkout. None if it is empty. Raises InputError if the nodes' values differ.
    """
    different = sorted({str(value) for value in values} or {str(Settings.model_fields[name].default)})
    if len(different) > 1:
        raise InputError(f"{name} belongs to the whole run and differs between nodes: {', '.join(different)}.")
    return CHECKOUT / Path(different[0]).expanduser() if different[0] else None


def require_writable(name: str, directory: Path) -> None:
    """Raise InputError, naming the setting, if the directory is not writable."""
    if not directory.is_dir():
        raise InputError(f"{name}: there is no directory {directory} on the controller.")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"{name}: {directory} cannot be written.")


def results_in(values: Sequence[object]) -> Path:
    """Return the directory of all runs, from the nodes' values of the setting. Raises InputError."""
    found = directory_in(RESULTS_DIR, values)
    if found is None:
        raise InputError(f"{RESULTS_DIR} is empty: name a directory.")
    return found


def asked_results(sources: Sequence[str] = ()) -> tuple[Path, str]:
    """Return the inventory's directory of runs, and which inventory that is; by default that of ansible.cfg.

    Raises InputError if it cannot be read. Without Ansible or a checkout it is `results` in the current directory.
    """
    configuration = CHECKOUT / "ansible.cfg"
    if not sources and not configuration.is_file():
        return Path(DEFAULT).absolute(), "no inventory is here"
    if not Path("ansible.cfg").is_file():
        os.environ.setdefault("ANSIBLE_CONFIG", str(configuration))
    os.environ.update(utf8_locale())
    try:
        from ansible import constants
        from ansible.errors import AnsibleError
    except ModuleNotFoundError:
        return Path(DEFAULT).absolute(), "Ansible, which reads inventories, is not installed here"
    used = list(sources or constants.DEFAULT_HOST_LIST)
    named = ", ".join(used)
    # Ansible would warn of a missing inventory; but before the first one is written there may be runs (make demo).
    if not any("," in source or Path(source).exists() for source in used):
        if sources:
            raise InputError(f"{named}: there is no such inventory.")
        return CHECKOUT / DEFAULT, f"the default; there is no {named} yet"
    try:
        values = _values(used)
    except (AnsibleError, SystemExit) as error:  # Ansible ends the process if it cannot be loaded
        reason = " ".join(str(error).split())
        raise InputError(f"{named}: {RESULTS_DIR} cannot be read from it; give --results-dir. {reason}") from None
    said = named if values else f"the default; {named} does not set {RESULTS_DIR}"
    return results_in(values), said


def _values(sources: list[str]) -> list[Any]:
    """Return the setting's value on every node that has one, as a playbook of this checkout would see it."""
    from ansible import constants
    from ansible.cli import CLI
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar
    from ansible.vars.manager import VariableManager

    loader = DataLoader()
    loader.set_basedir(str(CHECKOUT / "playbooks"))
    # Never prompts for a vault password, but reads files that hold one.
    identities = constants.DEFAULT_VAULT_IDENTITY_LIST
    loader.set_vault_secrets(CLI.setup_vault_secrets(loader, identities, auto_prompt=False, initialize_context=False))
    inventory = InventoryManager(loader=loader, sources=sources)
    variables = VariableManager(loader=loader, inventory=inventory)
    values = []
    for host in inventory.get_hosts(GROUP):
        known = variables.get_vars(host=host)
        if RESULTS_DIR in known:
            values.append(Templar(loader=loader, variables=known).template(known[RESULTS_DIR]))
    return values
