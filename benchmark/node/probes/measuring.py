"""Runs probes one after the other, in a process that ends afterwards: GPU memory is free again, whatever happened.

    python3 -m benchmark.node.probes.measuring gpu INDEX
    python3 -m benchmark.node.probes.measuring gpus
    python3 -m benchmark.node.probes.measuring node DIRECTORY

prints one line of JSON: `figures`, name -> [value, unit], and `notes`, what could not be measured and why. It
ends, with all processes of its session, when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from benchmark.node.probes.found import of_scope
from benchmark.node.probes.interfaces import Gpu, Host


def measure(scope: Any, place: Any) -> dict[str, Any]:
    """Return what the probes of a scope found. One that fails costs the others nothing."""
    figures: dict[str, Any] = {}
    notes = []
    for probe in of_scope(scope):
        name = probe.__name__.rpartition(".")[2]
        try:
            figures |= probe.measure(place)
        except Exception as error:  # whatever a driver or a library raises
            notes.append(f"{name.replace('_', ' ')}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return {"figures": figures, "notes": notes}


def end_with_input() -> None:
    """Wait for the end of the standard input: whoever wanted the figures is gone then."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def main(scope: str, *words: str) -> None:
    """Measure and print."""
    if os.getpgrp() == os.getpid():
        threading.Thread(target=end_with_input, daemon=True).start()
    if scope == "node":
        host = Host(Path(words[0]), len(os.sched_getaffinity(0)))
        found = measure(scope, host)
    else:
        import torch

        if scope == "gpus":
            found = measure(scope, torch)
        else:
            torch.cuda.set_device(int(words[0]))
            properties = torch.cuda.get_device_properties(int(words[0]))
            gpu = Gpu(torch, int(words[0]), str(getattr(properties, "uuid", "")))
            found = {**measure(scope, gpu), "name": properties.name, "uuid": gpu.uuid}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
