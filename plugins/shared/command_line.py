"""The command line of this ansible-playbook, for running it again: as it was given, but without secrets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.splitter import split_args

from benchmark.settings import Settings
from benchmark.variables import VARIABLES

KNOWN = frozenset(Settings.model_fields) | {variable.name for variable in VARIABLES}
SECRET = frozenset(variable.name for variable in VARIABLES if variable.secret)
# For variables that are not ours: usual names of passwords, tokens and keys; the name of a key file is not secret.
_SECRET_NAME = re.compile(
    r"(pass|passwd|password|passphrase|pwd|secret|token|credentials?|(api|access|auth|private|secret)_?key|authorization)"
    r"s?$",
    re.IGNORECASE,
)
# A URL with a password, such as a proxy's.
_PASSWORD_IN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s@:]*:[^/\s@]+@")
PROGRAM = "ansible-playbook"
# Set by benchmark/cluster/playbook.py, which gives ansible-playbook a PATH that the caller's shell does not have.
CALLED_AS = "LLM_BENCHMARK_ANSIBLE_PLAYBOOK"
# Environment variables that decide what is run, where and as which user. Not ssh's arguments, which may contain a
# password, such as that of a ProxyCommand.
_KEPT = (
    *("ANSIBLE_CONFIG", "ANSIBLE_INVENTORY", "ANSIBLE_RUN_TAGS", "ANSIBLE_SKIP_TAGS"),
    *("ANSIBLE_REMOTE_USER", "ANSIBLE_REMOTE_PORT", "ANSIBLE_PRIVATE_KEY_FILE"),
    *("ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_IDENTITY_LIST"),
)


@dataclass(frozen=True)
class CommandLine:
    """A line for a shell, and the names of the secret variables that were left out."""

    text: str
    hidden: tuple[str, ...] = ()


def command_line(
    argv: Sequence[str], extras: Sequence[str], *, checkout: Path, cwd: Path, secrets: Collection[str] = ()
) -> CommandLine:
    """Return the line that runs `argv` again, wherever it is pasted.

    `extras`: the values of its options -e, as parsed. `secrets`: secret values of settings, which may also appear in
    other variables. A secret variable is left out entirely, and so is its -e if nothing else is in it.
    """
    words, hidden, position = list(argv[1:]), list[str](), 0
    if Path(argv[0]).name == "__main__.py" and words[:1] == ["playbook"]:
        del words[0]  # python -m ansible playbook ...
    for extra in extras:
        kept, names = _without_secrets(extra, secrets)
        if not names:
            continue
        hidden += names
        position = next(
            (place for place in range(position, len(words)) if _gives(words[place], extra)),
            len(words),
        )
        if position == len(words):
            # Not in a word of its own, or not from this process: the line does not contain it.
            position = 0
        elif kept:
            words[position] = words[position].removesuffix(extra) + kept
        else:
            # "-e", "VALUE", or both in one word, perhaps after other letters ("-vve...", which are removed with it).
            first = position - 1 if words[position] == extra else position
            del words[first : position + 1]
            position = first
    line = shlex.join([_program(argv[0]), *words])
    given = [f"{name}={shlex.quote(os.environ[name])}" for name in _KEPT if os.environ.get(name)]
    there = [] if cwd == checkout else [f"cd {shlex.quote(str(cwd))} &&"]
    return CommandLine(" ".join([*there, *given, line]), tuple(dict.fromkeys(hidden)))


def _program(called: str) -> str:
    """Return the name of this ansible-playbook, or its path if a shell would not find it by that name."""
    if named := os.environ.get(CALLED_AS):
        return named
    path = Path(called).absolute()
    there = path.name == PROGRAM and path.is_file()
    return str(path) if there and shutil.which(PROGRAM) != str(path) else PROGRAM


def _gives(word: str, extra: str) -> bool:
    return word == extra or (word.startswith("-") and word.endswith(extra))


def _without_secrets(extra: str, secrets: Collection[str]) -> tuple[str, list[str]]:
    """Return the part of a value of -e that is not secret, and the names of the secret variables."""
    if extra.startswith("@"):
        return extra, []
    if extra[:1] in "[{":
        return _mapping_without_secrets(extra, secrets)
    try:
        pairs = split_args(extra)
    except AnsibleError:
        return "", ["-e"]
    hidden = [pair for pair in pairs if _is_secret(*_name_and_value(pair), secrets)]
    kept = " ".join(pair for pair in pairs if pair not in hidden)
    return (kept if hidden else extra), [_name_and_value(pair)[0] for pair in hidden]


def _mapping_without_secrets(extra: str, secrets: Collection[str]) -> tuple[str, list[str]]:
    try:
        given = yaml.safe_load(extra)
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict):
        return "", ["-e"]
    hidden = [str(name) for name, value in given.items() if _is_secret(str(name), value, secrets)]
    if not hidden:
        return extra, []
    # As a flow mapping again: -e accepts YAML wherever it accepts JSON.
    kept = {name: value for name, value in given.items() if str(name) not in hidden}
    text = yaml.safe_dump(kept, default_flow_style=True, width=float("inf"), sort_keys=False).strip()
    return (text if kept else ""), hidden


def _name_and_value(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return name, value


def _is_secret(name: str, value: object, secrets: Collection[str]) -> bool:
    if name in KNOWN:
        return name in SECRET  # other settings are in the run's files anyway
    if any(_SECRET_NAME.search(each) for each in (name, *_names_within(value))):
        return True
    texts = list(_texts_within(value))
    return any(_PASSWORD_IN_URL.search(text) for text in texts) or any(one in text for text in texts for one in secrets)


def _names_within(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _names_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names_within(inner)


def _texts_within(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_within(inner)
    else:
        yield str(value)
