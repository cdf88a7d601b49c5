"""A package called vllm that takes the words of the real `vllm serve` and answers as `tests/openai_server.py` does.

For what vLLM itself is not needed for: that it is installed, started, measured, recorded and ended. It has a child, and
one that leaves its group, as the real one has processes for its engines. `python -m tests.vllm_stand_in` is not the way
to run it: `make` packs it into a wheel.
"""

from __future__ import annotations

from pathlib import Path

from tests import openai_server
from tests.unit.cluster.wheel_files import make_wheel

VERSION = "0.33.0"
# The words that the engine vllm uses, as vLLM 0.33.0 has them; what is none of them is refused as argparse does.
CLI = f'''
import argparse, os, signal, subprocess, sys, threading
from vllm_stand_in.openai_server import Counters, OpenAIServer

def main():
    parser = argparse.ArgumentParser(prog="vllm")
    serve = parser.add_subparsers(required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model_tag")
    for name in ("host", "served-model-name", "dtype", "load-format", "generation-config"):
        serve.add_argument("--" + name)
    for name in ("port", "max-model-len", "tensor-parallel-size", "data-parallel-size", "max-num-seqs"):
        serve.add_argument("--" + name, type=int)
    serve.add_argument("--gpu-memory-utilization", type=float)
    for name in ("enable-prefix-caching", "enable-log-requests", "disable-uvicorn-access-log"):
        serve.add_argument("--" + name, action=argparse.BooleanOptionalAction)
    words = serve.parse_args(sys.argv[2:])
    print("serving", words, flush=True)
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    key = os.environ.get("VLLM_API_KEY", "")
    with OpenAIServer((words.served_model_name,), words.port, "{VERSION}", words.host, key) as server:
        server.counters = Counters(words.enable_prefix_caching is not False)  # as vLLM: on unless switched off
        over.wait()
'''


def make(directory: Path) -> Path:
    """Write the wheel into `directory` and return its path."""
    files = {
        "vllm_stand_in/__init__.py": "",
        "vllm_stand_in/cli.py": CLI,
        "vllm_stand_in/openai_server.py": Path(openai_server.__file__).read_text(encoding="utf-8"),
        "{info}/entry_points.txt": "[console_scripts]\nvllm = vllm_stand_in.cli:main\n",
    }
    return make_wheel(directory, "vllm", VERSION, "aiohttp", more=files)
