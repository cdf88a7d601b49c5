"""Runs probes one after the other, in a process that ends afterwards, so that GPU memory is free again in any case.

    python3 -m benchmark.node.probes.measuring node DIRECTORY
    python3 -m benchmark.node.probes.measuring gpu INDEX GPUS

prints one line of JSON: `figures`, by name, and `notes`: what could not be measured, and why. With several GPUs the
process of each then waits for a line with the path of a file through which they find each other, and prints the figures
between them. It ends, with all processes of its session, when its standard input is closed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmark.node.probes.found import of_scope
from benchmark.node.probes.interfaces import Gpu, Gpus, Host
from benchmark.records.probes import MOST


def measure(scope: Any, place: Any) -> dict[str, Any]:
    """Return the figures of a scope's probes. One that fails does not affect the others."""
    figures: dict[str, Any] = {}
    notes = []
    for probe in of_scope(scope):
        name = probe.__name__.rpartition(".")[2]
        try:
            for figure, (value, unit) in probe.measure(place).items():
                if abs(value) <= MOST:  # false for nan too
                    figures[figure] = {"value": value, "unit": unit}
                else:
                    notes.append(
                        f"{figure.replace('_', ' ')}: the result was {value} {unit}, which is not a valid figure."
                    )
        except Exception as error:  # anything that a driver or a library raises
            notes.append(f"{name.replace('_', ' ')}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return {"figures": figures, "notes": notes}


def listen(lines: SimpleQueue[str]) -> None:
    """Forward standard input; at its end the reader of the figures is gone."""
    for line in sys.stdin:
        lines.put(line.strip())
    os.killpg(0, signal.SIGKILL)


def main(scope: str, *words: str) -> None:
    """Measure and print."""
    lines: SimpleQueue[str] = SimpleQueue()
    if os.getpgrp() == os.getpid():
        threading.Thread(target=listen, args=(lines,), daemon=True).start()
    if scope == "node":
        print(json.dumps(measure(scope, Host(Path(words[0]), len(os.sched_getaffinity(0))))), flush=True)
        return
    import torch

    index, count = map(int, words)
    torch.cuda.set_device(index)
    properties = torch.cuda.get_device_properties(index)
    gpu = Gpu(torch, index, str(getattr(properties, "uuid", "")))
    print(json.dumps({**measure(scope, gpu), "name": properties.name, "uuid": gpu.uuid}), flush=True)
    if count > 1:
        torch.cuda.empty_cache()
        print(json.dumps(measure("gpus", Gpus(torch, index, gpu.uuid, count, Path(lines.get())))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
