"""Measure what report.html costs: CPU seconds for loading matplotlib and drawing, the page's size, the memory.

python benchmarks/report.py results/<run id>
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from benchmark.cluster.aggregate import gather


def main(run_dir: Path) -> None:
    """Read the run, load the drawing code, draw three times, and print the cost of each."""
    began = time.process_time()
    gathered = gather(run_dir)
    read = time.process_time()
    from benchmark.cluster.report.page import render_report

    loaded = time.process_time()
    drawn = []
    for _ in range(3):
        start = time.process_time()
        page = render_report(gathered, run_dir)
        drawn.append(time.process_time() - start)
    print(f"{len(gathered.nodes)} nodes, {len(page.encode()) / 1000:.0f} kB")
    print(f"read the run      {read - began:6.2f} s of CPU")
    print(f"load matplotlib   {loaded - read:6.2f} s")
    print(f"draw, first time  {drawn[0]:6.2f} s")
    print(f"draw, again       {min(drawn[1:]):6.2f} s")
    print(f"memory            {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:6.0f} MiB peak")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
