"""Draw the curves of several sweeps into one chart: tokens/s per GPU against tokens/s per user.

    python3 -m benchmarks.curves chart.png NAME=RUN_DIRECTORY NAME=RUN_DIRECTORY

To sweep both engines on a GPU, set benchmark_profile: sweep, once with benchmark_engine: continuous, once with vllm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

from benchmark.records import ClusterResult
from benchmark.rundir import RESULT_FILE

MARKS = "osD^v"


def main() -> None:
    """Read the runs' summaries and write the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chart", type=Path, help="PNG or SVG file to write")
    parser.add_argument("runs", nargs="+", help="NAME=RUN_DIRECTORY of a run with a summary")
    arguments = parser.parse_args()
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for run, mark in zip(arguments.runs, MARKS, strict=False):
        name, _, directory = run.partition("=")
        result = ClusterResult.model_validate(json.loads((Path(directory) / RESULT_FILE).read_text(encoding="utf-8")))
        if result.sweep is None:
            raise SystemExit(f"The run in {directory} is not a sweep.")
        together = next(curve for curve in result.sweep.curves if curve.kind == "group")
        points = [
            (point.step, point.tokens_per_s_per_user, point.tokens_per_s_per_gpu)
            for point in together.points
            if point.tokens_per_s_per_user is not None and point.tokens_per_s_per_gpu is not None
        ]
        line = axes.plot([user for _, user, _ in points], [gpu for *_, gpu in points], marker=mark, label=name)[0]
        shift = (6, 6) if mark == MARKS[0] else (-6, -14)
        for step, user, gpu in points:
            axes.annotate(f"{step:g}", (user, gpu), shift, textcoords="offset points", color=line.get_color(), size=9)
    axes.set_xlabel("output tokens/s per user")
    axes.set_ylabel("output tokens/s per GPU")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title="labels: queries in flight")
    figure.savefig(arguments.chart, dpi=120)


if __name__ == "__main__":
    main()
