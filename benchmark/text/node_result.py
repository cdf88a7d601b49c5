"""The result of one node as text. It needs only jinja2 and the records, so that a node can show its own."""

from __future__ import annotations

from pathlib import Path

from benchmark.loads import load_words, sweep_words
from benchmark.probed import figures, in_order
from benchmark.records import CpuTime, Distribution, Metrics, NodeResult, Telemetry
from benchmark.repeats import deciding_metric, own_choice, repeat_of, spreads
from benchmark.text.columns import finish
from benchmark.text.descriptions import (
    check_words,
    connections_words,
    describe_engine,
    describe_prefix_cache,
    describe_profile,
    describe_startup,
    floor_note,
    model_of,
    spread_words,
)
from benchmark.text.figures import energy_words, figure, probe_unit, probe_value, worst_words
from benchmark.text.templating import environment
from benchmark.verdict import answer_words, label, value_of

_TIMES = (
    "latency_ms",
    "latency_from_issue_ms",
    "ttft_ms",
    "ttft_from_issue_ms",
    "tpot_ms",
    "issue_delay_ms",
    "first_report_delay_ms",
    "report_delay_ms",
)

_PERCENTILES = ("p50", "p90", "p95", "p99")

# In percent of one CPU's time: less steal than this is not worth a line.
STOLEN_PERCENT = 1.0


def render_node(result: NodeResult) -> str:
    """Return the node's result as text of at most WIDTH columns."""
    template = environment(Path(__file__).parent / "templates").get_template("node_result.txt.j2")
    repeats, sweep = _repeats(result), sweep_words(result)
    result = repeat_of(result, own_choice(result))
    metrics, profile = result.metrics, result.resolved.profile
    return finish(
        template.render(
            result=result,
            metrics=metrics,
            profile=describe_profile(profile),
            model=model_of(result),
            prefix_cache=describe_prefix_cache(result.serving.prefix_cache) if result.serving else None,
            hardware=_hardware(result),
            engine=describe_engine(result.engine) if result.engine else None,
            startup=describe_startup(result.engine.details) if result.engine else None,
            simulated=result.engine is not None and result.engine.simulated,
            watched=[*_watched(result.telemetry), *_stolen(result.cpu)],
            answers=answer_words(metrics) if metrics else [],
            times=_times(metrics) if metrics else [],
            percentiles=_heads(metrics) if metrics else [],
            repeats=repeats,
            sweep=sweep,
            load=load_words(result.load, result.resolved.settings.benchmark_device) if result.load else "",
            probes=_probes(result),
            connections=connections_words(result.serving) if result.serving else "",
            checks=[check_words(check) for check in result.verdict.checks] if result.verdict else [],
        )
    )


def _repeats(result: NodeResult) -> str:
    """Return which repeat the text shows and how far the repeats differ; nothing where there is only one."""
    each = [result.metrics, *(repeat.metrics for repeat in result.repeats)]
    if not result.repeats or result.resolved.profile.sweep:
        return ""
    lines = [
        f"{len(each)} with the model loaded once; the figures below are of repeat {own_choice(result)}, "
        f"this node's median by {label(deciding_metric(result))}"
    ]
    lines += map(spread_words, spreads(lambda number, metric: value_of(each[number - 1], metric), len(each)))
    return "\n".join(lines)


def _probes(result: NodeResult) -> list[tuple[str, str, str, str]]:
    """Return name, unit, median and worst place of each figure, ranked figures first."""
    return [
        (
            one.words,
            probe_unit(one.unit).strip(),
            probe_value(one.median, one.unit),
            worst_words(one) if one.worst.value != one.median else "",
        )
        for one in in_order([figures(result.probes)])
    ]


def _stolen(cpu: CpuTime | None) -> list[tuple[str, str]]:
    """Return the CPU time that the node's hypervisor took, where it may have mattered."""
    if cpu is None or cpu.stolen_s is None or not cpu.wall_s or 100 * cpu.stolen_s / cpu.wall_s < STOLEN_PERCENT:
        return []
    return [("CPU steal", f"the hypervisor took {figure(100 * cpu.stolen_s / cpu.wall_s)} % of one CPU's time")]


def _watched(telemetry: Telemetry | None) -> list[tuple[str, str]]:
    """Return what was monitored while measuring, a line each."""
    lines: list[tuple[str, str]] = []
    if telemetry is None:
        return lines
    if energy := telemetry.energy:
        words = energy_words(energy.joules, energy.tokens_per_joule, energy.joules_per_query)
        idle = "" if energy.idle_w is None else f"; {figure(energy.idle_w)} W before, idle"
        lines.append(("Energy", f"{words}{idle}; by the GPUs' own counters, not the wall"))
    for gpu in telemetry.gpus:
        held = ", ".join(f"{name} {share:.0%}" for name, share in gpu.throttled.items())
        lines.append(
            (
                f"GPU {gpu.index}",
                f"{figure(gpu.utilisation_percent)} % busy at {figure(gpu.sm_clock_mhz)} MHz, {figure(gpu.power_w)} W, "
                f"at most {figure(gpu.temperature_c_max)} C" + (f"; throttled: {held}" if held else ""),
            )
        )
    if telemetry.note:
        lines.append(("Not watched", telemetry.note))
    return lines


def _times(metrics: Metrics) -> list[tuple[str, Distribution, str]]:
    """Return label, distribution and note of every defined time."""
    defined = [(label(name), getattr(metrics, name)) for name in _TIMES if getattr(metrics, name) is not None]
    return [(name, d, floor_note([d], _PERCENTILES)) for name, d in defined]


def _heads(metrics: Metrics) -> list[str]:
    """Return the percentiles' headings, with a star on those with too few samples."""
    defined = [spread for name in _TIMES if (spread := getattr(metrics, name)) is not None]
    starred = {name for spread in defined for name in spread.insufficient}
    return [name.upper() + "*" * (name in starred) for name in _PERCENTILES]


def _hardware(result: NodeResult) -> str:
    seen = result.environment
    if seen is None:
        return "not examined"
    if result.resolved.settings.benchmark_device == "cpu" or not seen.gpus:
        return f"{seen.cpu} ({seen.cpu_count} CPUs, {seen.memory_mib} MiB), no GPU used"
    gpus = ", ".join(f"{gpu.known_as} ({gpu.memory_mib} MiB)" for gpu in seen.gpus)
    return f"{gpus}, driver {seen.driver or 'unknown'}, CUDA {seen.cuda or 'unknown'}"
