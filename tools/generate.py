"""Write what is made from elsewhere, or check that it is current.

python -m tools.generate [--check]

| made | from |
| --- | --- |
| the options in roles/*/meta/argument_specs.yml, between two comments | benchmark/settings/, benchmark/variables.py |
| roles/*/defaults/main.yml, the table in roles/*/README.md | the role's argument_specs.yml |
| docs/settings.md | all of these |
| docs/profiles.md | tools/profiles_page.py: what checks a profile |
| docs/schema/ | the records |
| docs/manifest.md | the pins |
"""

from __future__ import annotations

import io
import json
import re
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from benchmark import cli
from benchmark.commands import schema as schema_command
from benchmark.provisioned import ENGINES, PROVISIONING_ROLES
from benchmark.resolve import DECIDING
from benchmark.settings import RUN_WIDE, Settings
from benchmark.variables import NOTIFY, NOTIFY_HEADERS, RESUME, VARIABLES
from tools.profiles_page import profiles_page

CHECKOUT = Path(__file__).resolve().parents[1]
ROLES = CHECKOUT / "roles"
COMMAND = "make generate"
# Between these two comments of an argument_specs.yml; a role without them (cluster_summary) has options of its own.
BEGIN_OPTIONS = "      # made by tools/generate.py from benchmark/settings/: change them there"
END_OPTIONS = "      # end of what is made"
BEGIN_TABLE, END_TABLE = "<!-- variables: made by tools/generate.py -->", "<!-- end of variables -->"
# What is done where a run measures on the node.
BUSY = ("benchmark_busy", "benchmark_shared_machine", "benchmark_sync_timeout_s")
# What a role reads of the settings that another role's name begins.
BORROWED = {
    # What decides which packages an environment that exists must have.
    "python_env": (
        *BUSY,
        *DECIDING,
        "benchmark_dataset_path",
    ),
    **dict.fromkeys(ENGINES, (*BUSY, *DECIDING, "python_env_manage", "python_env_dir", "python_env_python")),
    "hf_cache": (
        *BUSY,
        *DECIDING,
        "benchmark_model",
        "benchmark_model_revision",
        "benchmark_dataset_path",
        "python_env_manage",
        "python_env_dir",
        "python_env_code_dir",
        "python_env_python",
        "python_env_requirements",
        "python_env_torch_index_url",
        "python_env_wheelhouse",
    ),
    "preflight": (
        *DECIDING,
        "benchmark_dataset_path",
        "benchmark_endpoint_ca_file",
        "benchmark_shared_machine",
        "benchmark_model",
        "benchmark_model_revision",
        "hf_cache_dir",
        "hf_cache_source",
        "hf_cache_min_free_gb",
        "python_env_manage",
        "python_env_dir",
        "python_env_code_dir",
        "python_env_min_free_gb",
        "python_env_python",
        "python_env_requirements",
        "python_env_torch_index_url",
        "python_env_wheelhouse",
    ),
}
# In defaults/main.yml alone, since arguments of a task are printed with -vvv.
COMPUTED = {"hf_cache_token": "{{ lookup('ansible.builtin.env', 'HF_TOKEN') }}"}
# The first setting of each part of docs/settings.md, in the order of the roles' settings.
PARTS = {
    "benchmark_profile": "What is measured",
    "benchmark_target_qps": "Target, accuracy and probes",
    "benchmark_engine": "Engine",
    "benchmark_endpoint_urls": "Servers, for the engine endpoint",
    "benchmark_system": "Measuring on several nodes",
    "benchmark_fail_on_invalid": "The run and its files",
    "benchmark_endpoint_api_key": "Secrets, resuming and notifying",
    "preflight_gpus": "Preflight",
    "python_env_manage": "The Python environment on a node",
    **{f"{name}_manage": f"{engine.title}'s environment, for the engine {name}" for name, engine in ENGINES.items()},
    "hf_cache_dir": "Model and dataset",
}
ORDER = ("benchmark", "preflight", *PROVISIONING_ROLES)
Options = dict[str, dict[str, Any]]


def described() -> Options:
    """Return every setting and variable as Ansible describes options."""
    options: Options = {}
    for name, field in Settings.model_fields.items():
        options[name] = {**_type(field.annotation), "default": field.default, "description": field.description}
    for variable in VARIABLES:
        option: dict[str, Any] = {"type": variable.type}
        option |= {"no_log": True} if variable.secret else {}
        option |= {} if variable.default is None else {"default": variable.default}
        options[variable.name] = {**option, "description": variable.description}
    return options


def _type(annotation: Any) -> dict[str, Any]:
    """Return what Ansible calls a setting's type: with more than one it only takes what it is given (`raw`)."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return {"type": "str", "choices": list(inner)}
    if origin in (Union, UnionType):
        return {"type": "raw"}
    if origin is list:
        return {"type": "list", "elements": _type(inner[0])["type"]}
    return {"type": (origin or annotation).__name__}


def own(role: str, options: Options) -> Options:
    """Return the options that carry the role's name."""
    return {name: option for name, option in options.items() if name.startswith(f"{role}_")}


def argument_specs(role: Path) -> str:
    """Return the role's argument_specs.yml with the options as the settings describe them."""
    text = (role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    if BEGIN_OPTIONS not in text:
        return text
    before, _, rest = text.partition(BEGIN_OPTIONS)
    _, end, after = rest.partition(END_OPTIONS)
    if not end:
        raise SystemExit(f"roles/{role.name}/meta/argument_specs.yml lacks the line '{END_OPTIONS.strip()}'")
    every = described()
    wanted = own(role.name, every) | {name: every[name] for name in BORROWED.get(role.name, ())}
    lines = []
    for name, option in wanted.items():
        lines += [f"      {name}:", *(f"        {key}: {_yaml(value)}" for key, value in option.items())]
    return "\n".join([before + BEGIN_OPTIONS, *lines, END_OPTIONS]) + after


def options_of(specs: str) -> Options:
    """Return the main entry point's options."""
    options: Options = yaml.safe_load(specs)["argument_specs"]["main"].get("options") or {}
    return options


def defaults(role: str, options: Options) -> str:
    """Return the role's defaults/main.yml: every variable with its meaning above it."""
    lines = [
        "---",
        "# Made by tools/generate.py. To change a value, set it in the inventory or with -e: docs/settings.md.",
    ]
    for name, option in own(role, options).items():
        lines += [f"# {line}" for line in textwrap.wrap(_sentence(option["description"]), 118)]
        value = COMPUTED.get(name, option.get("default"))
        lines.append(f"{name}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def readme(role: Path, options: Options) -> str:
    """Return the role's README: its own words around the table."""
    text = (role / "README.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN_TABLE)
    _, end, after = rest.partition(END_TABLE)
    if not begin or not end:
        raise SystemExit(f"roles/{role.name}/README.md lacks the lines '{BEGIN_TABLE}' and '{END_TABLE}'")
    return f"{before}{BEGIN_TABLE}\n\n{table(options)}\n\n{END_TABLE}{after}"


def table(options: Options) -> str:
    """Return the options as a Markdown table."""
    lines = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in options.items():
        kind = "number or word" if option["type"] == "raw" else option["type"]
        if choices := option.get("choices"):
            kind += ": " + ", ".join(f"`{choice}`" if choice else "empty" for choice in choices)
        default = "required" if option.get("required") else _shown(COMPUTED.get(name, option.get("default")))
        lines.append(f"| `{name}` | {kind} | {default} | {option['description']} |")
    return "\n".join(lines)


def settings_page(options: Options) -> str:
    """Return docs/settings.md: all settings in parts, and where they are set."""
    wanted = {name: option for role in ORDER for name, option in own(role, options).items()}
    parts: list[tuple[str, Options]] = []
    for name, option in wanted.items():
        if name in PARTS:
            parts.append((PARTS[name], {}))
        parts[-1][1][name] = option
    text = (CHECKOUT / "tools" / "settings_page.md").read_text(encoding="utf-8").rstrip("\n")
    run_wide = ", ".join(f"`{name}`" for name in (*RUN_WIDE, RESUME, NOTIFY, NOTIFY_HEADERS))
    text = text.replace("RUN_WIDE", textwrap.fill(run_wide, 128, break_on_hyphens=False))
    return "\n\n".join([text, *(f"## {title}\n\n{table(part)}" for title, part in parts)]) + "\n"


def made() -> dict[Path, str]:
    """Return every file that is made, with what it has to hold."""
    files: dict[Path, str] = {}
    options: Options = {}
    for role in sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml")):
        specs = argument_specs(role)
        files[role / "meta" / "argument_specs.yml"] = specs
        options |= own(role.name, options_of(specs))
        if own(role.name, options_of(specs)):
            files[role / "defaults" / "main.yml"] = defaults(role.name, options_of(specs))
        files[role / "README.md"] = readme(role, options_of(specs))
    files[CHECKOUT / "docs" / "settings.md"] = settings_page(options)
    files[CHECKOUT / "docs" / "profiles.md"] = profiles_page()
    files |= {schema_command.DIRECTORY / name: text for name, text in schema_command.schemas().items()}
    with redirect_stdout(io.StringIO()) as manifest:
        cli.main(["manifest"])
    files[CHECKOUT / "docs" / "manifest.md"] = manifest.getvalue()
    return files


def _yaml(value: Any) -> str:
    """Return a value as YAML in one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = bool(re.fullmatch(r"[\w~/][^#:{}\[\]\"]*", value)) and value == value.strip()
    return value if plain and yaml.safe_load(value) == value else json.dumps(value, ensure_ascii=False)


def _shown(default: Any) -> str:
    if default is None:
        return ""
    if default == "":
        return "empty"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _sentence(text: str) -> str:
    """Return a description as a sentence; a name that begins it stays as it is written."""
    first = text.split()[0]
    return (text if "_" in first or first[-1] in ":," else text[0].upper() + text[1:]) + "."


def main() -> int:
    """Write or check all; return 1 where the check found one that is old."""
    old = [(path, text) for path, text in made().items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in old:
        if "--check" in sys.argv[1:]:
            print(f"{path.relative_to(CHECKOUT)} is old: {COMMAND} writes it anew")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(CHECKOUT)}")
    return 1 if old and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
