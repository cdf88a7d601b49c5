"""Measure the engines on one device without real weights, in the shape of Llama-3.1-8B with random values.

Prints one table, each row as soon as it is known: first the limits of the device, then

  A  32 tokens in, 64 out: one by one through `sequential`, a bare `generate` (also compiled) and `continuous`; all at
     once through one static batch and through `continuous`
  B  prompts as long as CNN/DailyMail's, 128 out: all at once through `continuous`, with each attention, with and
     without CUDA graphs, asynchronous batching and `fuse`; where the time of a step goes; what LoadGen and the
     adapter cost; whether answers obey min_new_tokens, and what that costs; and the highest Server QPS at which
     runs of LoadGen keep P99 TTFT and TPOT within MLPerf's limits (in ms, as "2000/100")

The part `load` runs only if it is named. It writes the model to the disk (16 GB), reads it in every way, from the disk
and cached, and starts both engines on it.

Needs no network. A failed measurement is a row with the reason, and the rest goes on.

    python3 benchmarks/engine.py [--dtype float16] [--budget-s 300] [--parts floor,sequential,continuous] [--json PATH]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench import VARIANTS
from benchmarks.driven import LIMITS, DrivenBench
from benchmarks.shapes import SHAPES
from benchmarks.table import Table

PARTS = (
    "floor",
    "check",
    "sequential",
    "alone",
    "static",
    "continuous",
    "split",
    "harness",
    "least",
    "server",
    "compiled",
    "load",
)
# The fastest first: time may run out.
ATTENTIONS = ("flash_attention_3", "flash_attention_2", "paged_flash", "sdpa", "paged|eager")
COLUMNS = {
    **{"workload": 8, "engine": 13, "attention": 17, "graphs": 6, "async": 5, "queries": 7, "seconds": 7},
    **{"tokens/s": 8, "of most": 7, "TTFT ms": 8, "TPOT ms": 7, "peak GB": 7},
}


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the device and versions to which the figures apply."""
    import torch
    import transformers

    name = "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name(0)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__}
    return {"device": name, "cuda": torch.version.cuda, **versions, "shape": arguments.shape, "dtype": arguments.dtype}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES), help="tiny: for testing the script")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run, in order; load runs only if named")
    parser.add_argument("--attentions", default=",".join(ATTENTIONS), help="attentions for workload B")
    parser.add_argument(
        "--variants", default="all", choices=sorted(VARIANTS), help="variants besides the automatic options"
    )
    parser.add_argument("--options", default="{}", help="JSON: further options of the continuous engine, for all rows")
    parser.add_argument("--queries-alone", type=int, default=20, help="queries of A, one by one")
    parser.add_argument("--queries-a", type=int, default=512, help="queries of A, all at once")
    parser.add_argument("--queries-b", type=int, default=256, help="queries of B, all at once")
    parser.add_argument(
        "--budget-s", type=float, default=600, help="seconds for all parts; a row ends when they are over"
    )
    parser.add_argument("--row-s", type=float, default=120, help="seconds for one row, including its warm-up")
    parser.add_argument("--probe-s", type=float, default=20, help="seconds of one probe of the Server search")
    parser.add_argument("--probes", type=int, default=6, help="most probes for each pair of limits")
    parser.add_argument("--rates", help="queries/s: instead of a search, run --probe-s at each until one is valid")
    parser.add_argument(
        "--limits", default="all", choices=["all", *LIMITS.values()], help="limits of the Server scenario"
    )
    parser.add_argument("--rounds", type=int, default=2, help="rounds for the cost of LoadGen and of min_new_tokens")
    parser.add_argument("--directory", type=Path, help="for the part load: directory on the disk to write the model to")
    parser.add_argument("--starts", default="sequential,continuous", help="for the part load: engines to start")
    parser.add_argument("--memory-gb", type=float, help="use at most this much of the GPU's memory")
    parser.add_argument("--json", type=Path, help="also write the table to this file, after each part")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Make the model, run the parts, print."""
    arguments = parse(words)
    os.environ["HF_HUB_OFFLINE"] = "1"
    table = Table(COLUMNS, about(arguments))
    table.say(" ".join(f"{name} {value}" for name, value in table.about.items()))
    began = time.monotonic()
    if arguments.memory_gb:
        import torch

        total = torch.cuda.mem_get_info(0)[1]
        torch.cuda.set_per_process_memory_fraction(arguments.memory_gb * 1e9 / total)
    bench = DrivenBench(arguments, table)
    table.say(f"made {bench.loaded.details['parameters']} parameters in {time.monotonic() - began:.1f} s")
    for part in arguments.parts.split(","):
        try:
            getattr(bench, f"run_{part}")()
        except Exception as error:  # the other parts go on
            table.say(f"{part}: {type(error).__name__}: {error}")
        if arguments.json:
            table.write(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
