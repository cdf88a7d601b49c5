"""A stand-in for nvidia-smi: a program that answers for given GPUs as driver 580 did on a machine with two H200s."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

# What it said of the first, idle.
H200 = {
    "index": "0",
    "pci.bus_id": "00000000:00:06.0",
    "name": "NVIDIA H200",
    "memory.total": "143771",
    "driver_version": "580.159.04",
    "uuid": "GPU-a5ce8628-0947-5c92-ac5f-03be6e81ce41",
    "pstate": "P0",
    "persistence_mode": "Enabled",
    "compute_mode": "Default",
    "pcie.link.gen.current": "5",
    "pcie.link.gen.max": "5",
    "pcie.link.width.current": "16",
    "pcie.link.width.max": "16",
    "retired_pages.pending": "[N/A]",
    "ecc.errors.uncorrected.volatile.total": "0",
    "mig.mode.current": "Disabled",
    "remapped_rows.pending": "No",
    "remapped_rows.failure": "No",
    "fabric.state": "Completed",
    "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": "No",
    "gpu_recovery_action": "None",
}
PROGRAM = r"""#!{python} -IS
import json, sys
gpus, known, said, code = json.loads({reported!r})
query = next((word for word in sys.argv[1:] if word.startswith("--query-")), "")
kind, _, fields = query.partition("=")
if kind not in known:
    print(f"ERROR: Option {{query}} is not recognized. Please run 'nvidia-smi -h'.")
    sys.exit(255)
for field in fields.split(","):
    if field not in known[kind]:
        print(f'Field "{{field}}" is not a valid field to query.\n')
        sys.exit(2)
print(*said, sep="\n", end="\n" * bool(said))
for gpu in gpus:
    print(", ".join(gpu.get("uuid" if field == "gpu_uuid" else field, "[N/A]") for field in fields.split(",")))
sys.exit(code)
"""


def eight(changes: dict[int, dict[str, str]] | None = None, lost: Collection[int] = ()) -> list[dict[str, str]]:
    """Return what is said of eight H200s, with changes by their numbers; of those that are lost nothing is said."""
    gpus = []
    for number in range(8):
        own = {"index": str(number), "pci.bus_id": f"00000000:{number + 1:02X}:00.0", "uuid": uuid(number)}
        gpus.append({**H200, **own, **(changes or {}).get(number, {})})
    return [gpu for number, gpu in enumerate(gpus) if number not in lost]


def uuid(number: int) -> str:
    """Return the UUID of one of the eight."""
    return f"GPU-{number}5ce8628-0947-5c92-ac5f-03be6e81ce41"


def write(
    directory: Path,
    gpus: Sequence[dict[str, str]],
    unknown: Collection[str] = (),
    said: Sequence[str] = (),
    code: int = 0,
) -> Path:
    """Write the program `nvidia-smi` into a directory and return it.

    `unknown`: the fields and --query options that it does not know; `said`: lines that it prints before all others.
    """
    program = directory / "nvidia-smi"
    rows = ["gpu_uuid", "remapped_rows.pending", "remapped_rows.failure"]
    known = {"--query-gpu": [field for field in H200 if field not in unknown], "--query-remapped-rows": rows}
    reported = json.dumps([list(gpus), {kind: known[kind] for kind in known if kind not in unknown}, list(said), code])
    program.write_text(PROGRAM.format(python=sys.executable, reported=reported))
    program.chmod(0o755)
    return program
