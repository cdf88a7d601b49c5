"""Text for people: how numbers and words are set, and the result of one node.

Everything fits WIDTH columns. What a node sent is input from outside: it is cleaned, given to the templates as values,
and never used as a template. Needs jinja2 and the records, so that a node can show its own result.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.loads import load_words, sweep_words
from benchmark.probed import NodeFigure, figures, in_order
from benchmark.profiles import Profile
from benchmark.records import (
    Audit,
    Check,
    Distribution,
    EngineInfo,
    Metrics,
    NodeResult,
    PrefixCache,
    Rouge,
    Serving,
    Spread,
    Telemetry,
)
from benchmark.repeats import deciding_metric, own_choice, repeat_of, spreads
from benchmark.served import BECAUSE, INSTEAD_OF, NOT_REPORTED, describe_model, server_version
from benchmark.verdict import answer_words, label, unit, value_of
from benchmark.words import percent, plural, shown

if TYPE_CHECKING:
    from jinja2 import Environment

# A terminal has 80 columns, and Ansible indents what it prints by 8.
WIDTH = 72
# Labels of a list stand in a column of this width.
LABEL = 12
# Of an engine's start, in order; the last is the process's age when it was ready.
STARTUP_STAGES = (
    *("imports", "device", "tokenizer", "weights", "weights_from_disk", "device_transfer", "model"),
    *("attention", "cache", "warm_up", "capture", "cross_check", "since_process_start"),
)

# Of a figure: what follows it, and what it stands for.
_SCALES = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9))

_KINDS = {
    "health-check": "a health check, not a capacity figure",
    "hardware": "what the hardware itself delivers, without a model",
    "self-test": "a self-test of the tool, not a figure of the hardware",
}


def clean(text: object) -> str:
    """Return `text` on one line with nothing in it that could steer a terminal; odd characters become '?'."""
    words = " ".join(unicodedata.normalize("NFC", str(text)).split())
    if words.isascii() and words.isprintable():  # nearly all are: not a letter at a time
        return words
    return "".join(c if c.isprintable() and not unicodedata.category(c).startswith("M") else "?" for c in words)


def columns(text: str) -> int:
    """Return how many columns a terminal needs for clean text: East Asian wide characters take two."""
    return len(text) if text.isascii() else sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap(text: object, first: str = "", rest: str = "", width: int = WIDTH) -> str:
    """Return `text` in lines of at most `width` columns, the first behind `first` and the others behind `rest`.

    A word that is too long for a line is broken. `first` and `rest` are equally wide.
    """
    room = width - columns(first)
    lines = [""]
    for word in clean(text).split(" "):
        for piece in _pieces(word, room):
            joined = f"{lines[-1]} {piece}" if lines[-1] else piece
            if columns(joined) <= room:
                lines[-1] = joined
            else:
                lines.append(piece)
    return "\n".join((rest if number else first) + line for number, line in enumerate(lines))


def entry(name: object, text: object, mark: str = "") -> str:
    """Return `name` in a column of its own and the lines of `text` beside it; beneath it where the name is long."""
    indent = " " * LABEL
    parts = str(text).splitlines() or [""]
    own_line, lead = [], mark + left(name, LABEL - columns(mark))
    if columns(lead) > LABEL or not lead.endswith(" "):
        own_line, lead = [wrap(name, mark, mark)], indent
    return "\n".join([*own_line, wrap(parts[0], lead, indent), *(wrap(part, indent, indent) for part in parts[1:])])


def left(text: object, width: int) -> str:
    """Return clean text, filled up with spaces to `width` columns."""
    words = clean(text)
    return words + " " * (width - columns(words))


def above(name: object, width: int) -> str:
    """Return `name` as the first cell of a row: on a line of its own, above the row, where it is too long."""
    cell = left(name, width)
    return cell if columns(cell) <= width else f"{wrap(name)}\n{' ' * width}"


def right(value: float | str | None, width: int) -> str:
    """Return a number or a word at the right of `width` columns."""
    return (value if isinstance(value, str) else figure(value)).rjust(width)


def figure(value: float | None) -> str:
    """Return a number in at most five characters with the digits that a reader can use; '-' where it is undefined.

    Holds from 1e-99 to 1e+99, and for zero.
    """
    if value is None:
        return "-"
    value += 0.0  # of -0.0 the sign says nothing
    size = abs(value)
    if 0 < size < 0.01:
        return f"{value:.0e}"
    for suffix, scale in _SCALES:
        scaled = value / scale
        digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
        # 99,999.6 rounds to 100.0k, which is too long.
        for text in (f"{scaled:.{digits}f}{suffix}", f"{scaled:.0f}{suffix}"):
            if len(text) <= 5:
                return text
    return f"{value:.0e}"


def probe_value(value: float | None, unit: str) -> str:
    """Return a probe's value in at most five characters: a count (without a unit) whole, a share in percent."""
    if value is None or unit not in ("", "share"):
        return figure(value)
    whole = f"{value:.0f}" if unit == "" else f"{value:.0%}"
    return whole if len(whole) <= 5 else figure(value)


def probe_unit(unit: str) -> str:
    """Return the unit as it stands behind `probe_value`, with a leading space, or nothing."""
    return f" {clean(unit)}" if unit not in ("", "share") else ""


def worst_words(one: NodeFigure) -> str:
    """Return the worst place of a figure with several, and how far it is from the median where that is much."""
    off = "" if one.off is None else f", {percent(one.off)}"
    return f"{probe_value(one.worst.value, one.unit)}{probe_unit(one.unit)} on {one.worst.words}{off}"


def byte_size(size: float) -> str:
    """Return bytes as people read them: 16.1 GB, 2.0 MB; a billion bytes are a GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def moment(text: str) -> str:
    """Return an ISO 8601 time as a person writes it."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return text


def describe_profile(profile: Profile) -> str:
    """Return the profile's name and version, and what its numbers may be taken for."""
    kind = _KINDS.get(profile.kind)
    return f"{profile.name} v{profile.version}" + (f": {kind}" if kind else "")


def describe_prefix_cache(cache: PrefixCache | None) -> str | None:
    """Return how many prompt tokens came from servers' caches; None where there is no server."""
    if cache is None:
        return None
    if cache.cached_tokens is None:
        return f"prefix cache: {NOT_REPORTED} ({cache.source})"
    of = "" if cache.prompt_tokens is None else f" of {cache.prompt_tokens}"
    return f"prefix cache: {cache.cached_tokens}{of} prompt tokens came from it ({cache.source})"


def describe_engine(engine: EngineInfo) -> str:
    """Return its name, how many there were, and the version of the server behind it where that reports one."""
    version = server_version(engine)
    server = f", server version {version}" if version else ""
    fallback = describe_fallback(engine)
    return f"{engine.name}, {plural(engine.replicas, 'replica')}{server}" + (f"; {fallback}" if fallback else "")


def describe_fallback(engine: EngineInfo) -> str:
    """Return that it answered in the place of the profile's own engine, and why; empty: it is the profile's own."""
    asked = engine.details.get(INSTEAD_OF)
    return f"{engine.name} answered instead of {asked}: {engine.details.get(BECAUSE)}" if asked else ""


def startup_seconds(details: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each stage of an engine's start that its details name, in their order."""
    reported = details.get("startup_s")
    given = reported if isinstance(reported, dict) else {}
    return {name: given[name] for name in STARTUP_STAGES if type(given.get(name)) is float}


def describe_startup(details: Mapping[str, Any]) -> str | None:
    """Return how long each stage of an engine's start took; None where its details do not say."""
    seconds = startup_seconds(details)
    age = seconds.pop("since_process_start", None)
    stages = [f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items()]
    return ", ".join([*stages, *([] if age is None else [f"{age:.1f} s since the process began"])]) or None


def describe_rouge(rouge: Rouge) -> str:
    """Return the scores in percent, and of how many answers."""
    scores = (
        f"ROUGE-1 {rouge.rouge1:g}, ROUGE-2 {rouge.rouge2:g}, ROUGE-L {rouge.rougeL:g}, ROUGE-Lsum {rouge.rougeLsum:g}"
    )
    return f"{scores}; {rouge.answers} answers to {rouge.references} prompts, {rouge.generated_characters} characters"


def describe_audit(audit: Audit) -> str:
    """Return what a compliance test came to, and each rule that it failed by."""
    outcome = "passed" if audit.passed else "FAILED"
    reported = [f"{audit.name} {outcome}: {audit.answers} answers looked at."]
    reported += [words for words in audit.checks if ": FAIL" in words]
    reported += [f"{audit.errors} of its queries failed."] if audit.errors else []
    return " ".join(reported)


def energy_words(joules: float, tokens_per_joule: float | None, joules_per_query: float | None) -> str:
    """Return how much energy was used, and what for."""
    size, unit = (joules, "J") if joules < 1e4 else (joules / 1e3, "kJ") if joules < 1e7 else (joules / 1e6, "MJ")
    return f"{figure(size)} {unit}, {figure(tokens_per_joule)} tokens/J, {figure(joules_per_query)} J/query"


def floor_note(distributions: Iterable[Distribution], percentiles: Iterable[str]) -> str:
    """Return a sentence on which of `percentiles` rest on too few samples, or nothing."""
    names = list(percentiles)
    short = [d for d in distributions if any(name in d.insufficient for name in names)]
    if not short:
        return ""
    needed = {name: d.insufficient[name] for d in short for name in names if name in d.insufficient}
    counts = sorted({d.count for d in short})
    had = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = ", ".join(f"{name.upper()}: {needed[name]}" for name in names if name in needed)
    return f"of {had} samples: insufficient ({words} needed at 99 % confidence)"


@functools.cache
def environment(templates: Path) -> Environment:
    """Return the Jinja2 environment of the text templates in a directory, which compiles each once."""
    # Here: to load it and to compile a template takes a node a tenth of its start, and with an order it writes no text.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 # plain text: there is no markup to escape; `clean` guards the terminal
    )
    jinja.filters |= {"clean": clean, "entry": entry, "left": left, "right": right, "wrap": wrap, "figure": figure}
    jinja.filters |= {"moment": moment, "at": _at, "above": above, "rouge": describe_rouge, "audit": describe_audit}
    return jinja


def finish(rendered: str) -> str:
    """Return rendered text without trailing spaces and with one newline at its end."""
    return "\n".join(line.rstrip() for line in rendered.strip().split("\n")) + "\n"


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
            watched=_watched(result.telemetry) if result.telemetry else [],
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


def model_of(result: NodeResult) -> str:
    """Return what the result's numbers are of: model, revision, precision, device."""
    engine = result.engine
    name = engine.name if engine else result.resolved.profile.engine
    return describe_model(result.resolved.settings, name, engine.details if engine else None)


def spread_words(spread: Spread) -> str:
    """Return a figure's median and range over the repeats, and whether it is stable."""
    suffix, unstable = unit(spread.metric), "" if spread.stable else ": NOT STABLE"
    return (
        f"{label(spread.metric)} {figure(spread.median)}{suffix}, {figure(spread.lowest)} to {figure(spread.highest)}, "
        f"CV {spread.cv:.1%}{unstable}"
    )


def connections_words(serving: Serving) -> str:
    """Return how many queries lacked a connection, or had one that the server had closed; empty where none did."""
    reported = []
    if serving.waited:
        reported.append(f"{plural(serving.waited, 'query', 'queries')} waited for one of {serving.max_connections}")
    if serving.resent:
        reported.append(
            f"{plural(serving.resent, 'query was', 'queries were')} sent once more: the server had closed the "
            "connection while idle"
        )
    return "; ".join(reported)


def _repeats(result: NodeResult) -> str:
    """Return which repeat the text shows and how far all differ; nothing where there is only one."""
    each = [result.metrics, *(repeat.metrics for repeat in result.repeats)]
    if not result.repeats or result.resolved.profile.sweep:
        return ""
    lines = [
        f"{len(each)} with the model loaded once; below is repeat {own_choice(result)}, this node's median by "
        f"{label(deciding_metric(result))}"
    ]
    lines += map(spread_words, spreads(lambda number, metric: _at(each[number - 1], metric), len(each)))
    return "\n".join(lines)


def _probes(result: NodeResult) -> list[tuple[str, str, str, str]]:
    """Return name, unit, median and worst place of each figure: those that are ranked first."""
    return [
        (
            one.words,
            probe_unit(one.unit).strip(),
            probe_value(one.median, one.unit),
            worst_words(one) if one.worst.value != one.median else "",
        )
        for one in in_order([figures(result.probes)])
    ]


def _watched(telemetry: Telemetry) -> list[tuple[str, str]]:
    """Return what was watched while measuring, a line each."""
    lines = []
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


def _times(metrics: Metrics) -> list[tuple[str, Distribution, str]]:
    """Return label, distribution and note of every defined time."""
    defined = [(label(name), getattr(metrics, name)) for name in _TIMES if getattr(metrics, name) is not None]
    return [(name, d, floor_note([d], _PERCENTILES)) for name, d in defined]


def _heads(metrics: Metrics) -> list[str]:
    """Return the percentiles' headings, with a star on those that rest on too few samples."""
    defined = [spread for name in _TIMES if (spread := getattr(metrics, name)) is not None]
    starred = {name for spread in defined for name in spread.insufficient}
    return [name.upper() + "*" * (name in starred) for name in _PERCENTILES]


def check_words(check: Check) -> tuple[str, str]:
    """Return "pass" or "FAIL", and the check's value beside its limit."""
    if check.comparison == "holds":
        return "pass" if check.passed else "FAIL", check.metric + (f"; {check.note}" if check.note else "")
    suffix, comparison = unit(check.metric), check.comparison.replace("_", " ")
    value = "undefined" if check.value is None else shown(check.value, check.limit) + suffix
    text = f"{label(check.metric)}: {value}, {comparison} {shown(check.limit, check.value)}{suffix}"
    return "pass" if check.passed else "FAIL", text + (f"; {check.note}" if check.note else "")


def _hardware(result: NodeResult) -> str:
    seen = result.environment
    if seen is None:
        return "not examined"
    if result.resolved.settings.benchmark_device == "cpu" or not seen.gpus:
        return f"{seen.cpu} ({seen.cpu_count} CPUs, {seen.memory_mib} MiB), no GPU used"
    gpus = ", ".join(f"{gpu.known_as} ({gpu.memory_mib} MiB)" for gpu in seen.gpus)
    return f"{gpus}, driver {seen.driver or 'unknown'}, CUDA {seen.cuda or 'unknown'}"


def _at(metrics: Metrics | None, path: str) -> float | None:
    return None if metrics is None else value_of(metrics, path)


def _pieces(word: str, room: int) -> list[str]:
    if columns(word) <= room:
        return [word]
    pieces = [""]
    for character in word:
        if columns(pieces[-1] + character) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces
