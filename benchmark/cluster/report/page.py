"""`report.html`: collects what the page shows and renders its template."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.cluster.aggregate import Gathered
from benchmark.cluster.render.job_summary import baseline_view
from benchmark.cluster.render.stability import beside
from benchmark.cluster.render.summary import view
from benchmark.cluster.report import sections
from benchmark.cluster.report.amounts import amount, median
from benchmark.cluster.report.curves import curved, uncounted
from benchmark.cluster.report.distributions import distributions
from benchmark.cluster.report.headline import advice, verdict_words
from benchmark.cluster.report.parts import NodeGroup, node_groups
from benchmark.cluster.report.probing import probing
from benchmark.cluster.report.probing import tiles as probe_tiles
from benchmark.cluster.report.ranking import ranking
from benchmark.cluster.report.repeating import repeating
from benchmark.cluster.report.sharing import sharing
from benchmark.cluster.report.templating import page_environment, style_sheet
from benchmark.cluster.report.timeline import timeline
from benchmark.cluster.report.trend import histories, trend
from benchmark.cluster.report.users import goodput_tables, users_tile
from benchmark.cluster.solo import losers
from benchmark.cluster.system_result import system_words
from benchmark.records import Comparison, NodeRow
from benchmark.text.descriptions import floor_note
from benchmark.words import plural

# Most groups that get charts; a run seldom has more than two.
MOST_CHARTED = 4
MOST_ADVICE = 5
MOST_TILES = 9


def render_report(gathered: Gathered, run_dir: Path, against_baseline: Comparison | str = "") -> str:
    """Return the page of the run in `run_dir`; `against_baseline`: the change, if there is a baseline."""
    run, nodes, result = gathered.run, gathered.nodes, gathered.result
    groups = node_groups(run_dir, result, nodes)
    notes = advice(result)
    changed, every = sections.settings(run)
    counted = [node for node in nodes if node.counted]
    known = histories(run_dir)
    lost = {node for node, _ in losers(result.nodes)}
    template = page_environment().get_template("report.html.j2")
    return template.render(
        **view(result, run),
        version=__version__,
        css=style_sheet(),
        why=verdict_words(result),
        first=notes[0],
        others=notes[1:MOST_ADVICE],
        tiles=_tiles(gathered, groups),
        groups=[_group(like, charted=like.number <= MOST_CHARTED) for like in groups],
        baseline=baseline_view(against_baseline),
        curved=[shown for like in groups if (shown := curved(like, result.sweep))][:MOST_CHARTED],
        uncounted=uncounted(result.sweep),
        repeated=[reported for like in groups if (reported := repeating(like, result.repeats))][:MOST_CHARTED],
        shared=[both for like in groups if (both := sharing(like, lost))][:MOST_CHARTED],
        asked_model=any(asked.profile.loads_model for asked in run.nodes.values()),
        probed=[one for like in groups if (one := probing(like, charted=like.number <= MOST_CHARTED))],
        trends=[(like, found) for like in groups[:MOST_CHARTED] if (found := trend(like, known))],
        checks=sections.checks(result),
        goodput=goodput_tables(result),
        energy=sections.consumption(result.nodes, result.groups),
        gpus=sections.gpus(counted),
        starts=sections.starts(counted),
        unwatched=sections.notes_of_watching(counted),
        changed=changed,
        every=every,
        software=sections.software(run, nodes),
    )


def _tiles(gathered: Gathered, groups: Sequence[NodeGroup]) -> list[tuple[str, str, str]]:
    """Return (value, unit, meaning) of each large figure at the top."""
    result = gathered.result
    tiles = []
    for number, group in enumerate(result.groups, start=1):
        which = f", group {number}" if len(result.groups) > 1 else ""
        if not groups[number - 1].queries:
            tiles += [(value, unit, meaning + which) for value, unit, meaning in probe_tiles(groups[number - 1])]
            continue
        if result.system:
            sum_of = system_words(group, result.system)
        else:
            grouped = all(row.members for row in result.nodes if row.node in group.nodes)
            what = "group" if grouped else "node"
            sum_of = f"the sum over {plural(len(group.nodes), what)}" if len(group.nodes) > 1 else f"of one {what}"
        qps, tokens = (f"{sum_of}{which}{beside(group, metric)}" for metric in ("qps", "tokens_per_s"))
        tiles.append((amount(group.qps), "QPS", f"completed queries, {qps}"))
        tiles.append((amount(group.tokens_per_s), "tokens/s", f"output tokens, {tokens}"))
        if group.gpus:
            tiles.append((amount(group.qps_per_gpu), "QPS", f"per GPU, on average{which}"))
        tiles += users_tile(group, which, result.sweep)
        tiles += _limit_tile([row for row in result.nodes if row.node in group.nodes], which)
    tiles = tiles[:MOST_TILES]
    tiles.append((f"{result.counted} of {result.asked}", "nodes", "counted"))
    return tiles


def _limit_tile(rows: Sequence[NodeRow], which: str) -> list[tuple[str, str, str]]:
    """Return how near the median node comes to what its own GPUs allow, if known."""
    known = [row.roofline for row in rows if row.roofline]
    times = [one.times_least_tpot for one in known if one.alone and one.times_least_tpot is not None]
    if times:
        return [(amount(median(times)), "x", f"the least TPOT that a GPU's own memory allows{which}")]
    shares = [one.share_of_most_tokens for one in known if not one.alone and one.share_of_most_tokens is not None]
    if shares:
        part = amount(100 * statistics.median(shares))
        return [(part, "%", f"of the most tokens/s that a GPU's own matrix rate allows{which}")]
    return []


def _group(like: NodeGroup, charted: bool) -> dict[str, Any]:
    rows = [sections.node_cells(like, like.rows[node.node], place) for place, node in enumerate(like.nodes, start=1)]
    rows = rows if like.queries else []
    out = [row for row in rows if row["slow"] or not row["valid"] or row["marked"]]
    spreads = [s for n in like.nodes if n.metrics for s in (n.metrics.latency_ms, n.metrics.ttft_ms) if s]
    return {
        "like": like,
        "rows": rows,
        "shown": rows if len(rows) <= sections.MOST_ROWS else out[: sections.MOST_ROWS],
        "folded": len(rows) > sections.MOST_ROWS,
        "note": floor_note(spreads, ("p50", "p99")),
        "ranking": ranking(like) if charted else None,
        "distributions": distributions(like) if charted else [],
        "timeline": timeline(like) if charted else None,
    }
