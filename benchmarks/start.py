"""Start an engine with a model from the disk, in a separate process, and print the time of each stage as JSON.

benchmarks/engine.py runs it for its part `load`:

    python3 -m benchmarks.start DIRECTORY --engine continuous --dtype float16 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmark.node.registry import plain_engine
from benchmark.node.startup import process_age_s
from benchmark.profiles import Generation
from benchmark.settings import Settings


def forget_cached(files: list[Path]) -> None:
    """Ask the system to drop the files from its page cache, so that the next read comes from the disk."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start_apart(settings: Settings, engine: str, options: dict[str, Any]) -> dict[str, Any]:
    """Start an engine in a new process; return its details with `age_s`, the process's age when it was ready."""
    words = [settings.benchmark_model, "--engine", engine, "--options", json.dumps(options)]
    words += ["--dtype", settings.benchmark_dtype, "--device", settings.benchmark_device]
    command = [sys.executable, "-m", "benchmarks.start", *words]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, text=True)
    details: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return details


def main() -> int:
    """Start the engine and print its details."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--engine", default="continuous")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--options", type=json.loads, default={})
    given = parser.parse_args()
    settings = Settings(
        benchmark_model=str(given.directory.resolve()), benchmark_device=given.device, benchmark_dtype=given.dtype
    )
    engine = plain_engine(given.engine, settings, Generation(), given.options)
    details = engine.load().details
    print(json.dumps({**details, "age_s": process_age_s()}), flush=True)
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
