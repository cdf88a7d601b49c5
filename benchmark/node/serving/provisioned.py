"""A provisioned engine on the node: its environment, and the command that starts its server."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmark import installed
from benchmark.errors import SetupError
from benchmark.node.model.load import find_snapshot
from benchmark.provisioned_engine import Part, ProvisionedEngine, ServerOptions, Start
from benchmark.settings import Settings

HOST = "127.0.0.1"
# Time limit for a Python to list its packages, even from a slow disk.
ASK_S = 60
# Sections and keys of config.json with the maximum length, as servers look for them.
TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_target_positions",
)
# Only what was provisioned is measured: no downloads.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

# An environment of the user stays unchanged: Python writes no bytecode into it.
UNWRITTEN = {"PYTHONDONTWRITEBYTECODE": "1"}


# The Python that a program starts with, as pip, uv and conda write it into the program's first lines.
STARTS_WITH = re.compile(
    rb"""#!\s?(/\S*/python[\d.]*)[ \n]|#!/bin/sh\n'{3}exec' ["']?(/[^"'\n]*/python[\d.]*)["']? ["']"""
)


def packages(engine: ProvisionedEngine, settings: Settings) -> dict[str, str]:
    """Return the versions, in the engine's environment, of the packages that can change a number."""
    return _packages(engine, _directory(engine, settings) / "bin" / "python3")


def _packages(engine: ProvisionedEngine, python: Path) -> dict[str, str]:
    """Ask a Python: only it knows where its packages are, and which come first."""
    text = Path(installed.__file__).read_text(encoding="utf-8")
    words = [str(python), "-B", "-c", text, *engine.packages]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=ASK_S, cwd="/")
        found: dict[str, str] = installed.told(done.stdout)["packages"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}
    return found


def _require_own(engine: ProvisionedEngine, program: Path, managed: bool) -> None:
    """Raise SetupError if a program would run in another environment than the recorded one.

    A program that was copied or moved still starts with the Python of the environment that it was installed in.
    """
    with program.open("rb") as file:
        named = STARTS_WITH.match(file.read(4096))
    if named is None:
        return
    python, own = Path(os.fsdecode(named[1] or named[2])), program.with_name("python3")
    remedy = f"reinstall {engine.title} there, or set {engine.name}_dir to the environment that it belongs to"
    if managed:
        remedy = f"remove {program.parents[1]}, and {_provision(engine)}"
    if not python.exists():
        raise SetupError(
            f"{program} starts with {python}, which does not exist (was the environment moved?): {remedy}."
        )
    if python.parent.samefile(program.parent):
        return
    there, here = _packages(engine, python), _packages(engine, own)
    if there != here:
        name = min(one for one in {*there, *here} if there.get(one) != here.get(one))
        has, wants = (found.get(name, "missing") for found in (there, here))
        raise SetupError(f"{program} starts with {python}, where {name} is {has}, but {own} has {wants}: {remedy}.")


def _provision(engine: ProvisionedEngine) -> str:
    return f"run playbooks/provision.yml with benchmark_engine: {engine.name}"


def python_version(engine: ProvisionedEngine, settings: Settings) -> str:
    """Return the version of the engine's Python; empty if it cannot be found out."""
    words = [str(_directory(engine, settings) / "bin" / "python3"), "-V"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=ASK_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().rpartition(" ")[2]


def free_port() -> int:
    """Return a free loopback port; the server opens it a moment later."""
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


def command(
    engine: ProvisionedEngine,
    settings: Settings,
    options: ServerOptions,
    url: str,
    copies: int,
    part: Part | None = None,
) -> str:
    """Return the shell command that serves the model at `url` only, in `copies` copies, each over its own GPUs.

    `part`: which part of one copy this node has; None: it has whole copies.
    Raises SetupError if the engine or the model is not installed.
    """
    program, managed = _directory(engine, settings) / "bin" / engine.program, engine.setting(settings, "manage")
    if not program.exists():
        remedy = _provision(engine)
        if not managed:
            remedy = f"set {engine.name}_dir to an environment that has {engine.title} ({engine.name}_manage is false)"
        raise SetupError(f"There is no {program}: {remedy}.")
    _require_own(engine, program, managed)
    snapshot, at = find_snapshot(settings), urlsplit(url)
    start = Start(
        snapshot=snapshot,
        model=settings.benchmark_model,
        host=at.hostname or HOST,
        port=at.port or 80,
        dtype=settings.benchmark_dtype,
        device=settings.benchmark_device,
        copies=copies,
        max_model_len=most_tokens(engine, options, snapshot),
        part=part,
    )
    # Its environment's programs come first: it may build kernels at start, with the ninja of its environment.
    unwritten = {} if managed else UNWRITTEN
    variables = [f"{name}={shlex.quote(value)}" for name, value in {**OFFLINE, **unwritten, **engine.variables}.items()]
    words = shlex.join([str(program), *engine.words(start, options)])
    return f'PATH={shlex.quote(str(program.parent))}:"$PATH" {" ".join(variables)} {words}'


def _directory(engine: ProvisionedEngine, settings: Settings) -> Path:
    return Path(engine.setting(settings, "dir")).expanduser()


def most_tokens(engine: ProvisionedEngine, options: ServerOptions, snapshot: Path) -> int:
    """Return how many tokens a prompt and its answer may have together."""
    return options.max_model_len or min([engine.max_model_len, *_lengths(snapshot)])


def _lengths(snapshot: Path) -> list[int]:
    """Return the maximum lengths of prompt and answer in config.json, in tokens; mostly one number, or none.

    They may be in the section of the language model (text_config), or under a model family's own key. If there are
    none, the server finds out the length itself.
    """
    reported = [part[name] for part in _described(snapshot) for name in LENGTHS if name in part]
    return [one for one in reported if type(one) is int and one > 0]


def quantization(snapshot: Path) -> str:
    """Return how the weights are quantized according to config.json; empty if it does not say."""
    for part in _described(snapshot):
        if isinstance(given := part.get("quantization_config"), dict):
            return str(given.get("quant_method") or "in an unknown way")[:100]
    return ""


def _described(snapshot: Path) -> list[dict[str, Any]]:
    """Return the sections of config.json for the whole model and for its language model."""
    try:
        config = json.loads((snapshot / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # the server reports better what is wrong with it
    parts = [config, *(config.get(part) for part in TEXT_PARTS)] if isinstance(config, dict) else []
    return [part for part in parts if isinstance(part, dict)]
