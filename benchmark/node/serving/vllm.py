"""vLLM on the node: the environment that the role vllm made, and the command that serves the model from it."""

from __future__ import annotations

import json
import shlex
import socket
from importlib import metadata
from pathlib import Path

from benchmark.errors import SetupError
from benchmark.node.model.load import find_snapshot
from benchmark.records.environment import SERVER_PACKAGES
from benchmark.settings import Settings
from benchmark.vllm import VllmOptions

HOST = "127.0.0.1"
# Enough for every prompt of the profiles with its answer; a model's own limit may ask for more cache than a GPU has.
MAX_MODEL_LEN = 8192
# Where config.json says how many tokens a model takes, and in which words: those that vLLM looks for.
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
# What is measured is what was provisioned: no download. And no report of its use to its makers.
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}


def packages(settings: Settings) -> dict[str, str]:
    """Return the versions, in vLLM's environment, of the packages that can change a number."""
    places = [str(place) for place in _directory(settings).glob("lib/python3*/site-packages")]
    found = {}
    for name in SERVER_PACKAGES:
        for distribution in metadata.Distribution.discover(name=name, path=places):
            found[name] = distribution.version
    # Builds for other hardware have names of their own, such as vllm-tpu.
    for place in _directory(settings).glob("lib/python3*/site-packages/vllm_*.dist-info"):
        distribution = metadata.Distribution.at(place)
        if any(str(path) == "vllm/__init__.py" for path in distribution.files or ()):
            found[place.name.partition("-")[0].replace("_", "-")] = distribution.version
    return found


def free_port() -> int:
    """Return a port of loopback that nothing listens on now; the server takes it a moment later."""
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


def command(settings: Settings, options: VllmOptions, port: int, copies: int) -> str:
    """Return the line of the shell that serves the model on loopback, `copies` times, each over its GPUs.

    Everything that decides a number is said, also where it is vLLM's default today. Raises SetupError where vLLM or the
    model is not there.
    """
    program = _directory(settings) / "bin" / "vllm"
    if not program.exists():
        raise SetupError(f"There is no {program}: run playbooks/provision.yml with benchmark_engine: vllm.")
    snapshot = find_snapshot(settings)
    words = [str(program), "serve", str(snapshot), "--served-model-name", settings.benchmark_model]
    words += ["--host", HOST, "--port", str(port), "--dtype", settings.benchmark_dtype]
    words += ["--max-model-len", str(options.max_model_len or _longest(snapshot))]
    # On the CPU it is the share of the node's memory.
    words += ["--gpu-memory-utilization", f"{options.gpu_memory_utilization:g}"]
    if settings.benchmark_device == "cuda":
        words += ["--tensor-parallel-size", str(options.tensor_parallel_size)]
        words += ["--data-parallel-size", str(copies)] if copies > 1 else []
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    # Repeated prompts would be answered without computing them; a model's own defaults would change how tokens are
    # chosen; a line for each request would take time of the server's.
    words += ["--no-enable-prefix-caching", "--generation-config", "vllm", "--load-format", "safetensors"]
    words += ["--no-enable-log-requests", "--disable-uvicorn-access-log", *options.arguments]
    # Its environment's programs first: it builds kernels while it starts, with the ninja that it came with.
    environment = [f"{name}={value}" for name, value in QUIET.items()]
    return f'PATH={shlex.quote(str(program.parent))}:"$PATH" {" ".join(environment)} {shlex.join(words)}'


def _directory(settings: Settings) -> Path:
    return Path(settings.vllm_dir).expanduser()


def _longest(snapshot: Path) -> int:
    """Return the tokens of prompt and answer that are asked for: no more than the model says that it takes.

    config.json may say it of the language model alone (text_config), or in a family's own word that vLLM knows. What a
    file does not say in either place, vLLM has to find out itself.
    """
    try:
        config = json.loads((snapshot / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return MAX_MODEL_LEN  # vLLM says better what is wrong with it
    places = [config, *(config.get(part) for part in TEXT_PARTS)] if isinstance(config, dict) else []
    reported = [one[name] for one in places if isinstance(one, dict) for name in LENGTHS if name in one]
    return min([MAX_MODEL_LEN, *(one for one in reported if type(one) is int and one > 0)])
