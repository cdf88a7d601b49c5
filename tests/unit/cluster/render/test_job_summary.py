"""The page of a CI job, read back with a Markdown parser."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import MAX_LISTED, render_job_summary
from benchmark.cluster.render.markdown import escape
from benchmark.files import write_record
from benchmark.records import ClusterResult, Drift, Failure, NodeRow, Verdict
from benchmark.rundir import read_run
from benchmark.text.columns import clean
from tests.unit.building import (
    HOST,
    RUN_ID,
    add_node,
    asked,
    closed_loop,
    make_run,
    often,
    result_of,
    write_node,
)

FAST = [1700.0, 1800.0, 1900.0]
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def page_of(run_dir: Path) -> str:
    return render_job_summary(Outcome(read_run(run_dir), aggregate(run_dir)))


def tokens(page: str) -> list[Token]:
    flat: list[Token] = []
    for token in PARSER.parse(page):
        flat += [token, *(token.children or ())]
    return flat


def cells(page: str) -> list[list[str]]:
    """Return the tables' rows as a reader sees them."""
    rows: list[list[str]] = []
    parsed = PARSER.parse(page)
    for number, token in enumerate(parsed):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in parsed[number + 1].children or ()))
    return rows


def test_nodes_totals_verdict_and_disclaimer(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3), "jw4": asked(3)})
    add_node(tmp_path, "jw2", asked(3), FAST)
    add_node(tmp_path, "jw3", asked(3), [4000.0] * 3)
    reported = Failure(node="jw4", stage="preflight", reason="Not reachable.\nAnd the disk is full.")
    write_record(tmp_path / "nodes" / "jw4" / "failure.json", reported)
    (tmp_path / "nodes" / "stranger").mkdir()
    page = page_of(tmp_path)
    assert page.startswith("## LLM inference benchmark: INVALID\n\nunverified, not an MLCommons submission\n")
    rows = cells(page)
    assert ["Nodes", "2 of 3 counted"] in rows
    assert ["jw2", "0.56", "1800", "1900", "1900", "50.0", "50.0", "27.8", "35.6", "valid"] in rows
    assert ["jw3", "0.25", "4000", "4000", "4000", "50.0", "50.0", "62.7", "16.0", "INVALID"] in rows
    assert ["jw4", "preflight: Not reachable. And the disk is full."] in rows
    assert "- Cluster: 0.81 QPS, 51.6 tokens/s (the sum over 2 nodes: a fleet figure)" in page
    assert "- Problem: nodes/stranger: the run has no node of this name; ignored." in page
    assert "1 of 3 nodes is not counted: jw4." in page


def test_drift_is_a_table_and_what_nodes_say_is_only_text(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked(3) for node in ("jw2", "jw3", "jw4")})
    for node, driver in (("jw2", "550.54.15"), ("jw3", "<b>|[x](y)`"), ("jw4", "550.54.15")):
        add_node(tmp_path, node, asked(3), FAST, environment=HOST.model_copy(update={"driver": driver}))
    rows = cells(page_of(tmp_path))
    assert ["NVIDIA A30", "driver", "550.54.15", "jw2, jw4"] in rows
    assert ["NVIDIA A30", "driver", "<b>|[x](y)`", "jw3"] in rows
    assert "html_inline" not in {token.type for token in tokens(page_of(tmp_path))}


def test_a_thousand_nodes_that_all_differ_fit_a_page(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    drift = tuple(
        Drift(
            hardware=f"GPU {n}" + "x" * 3000,
            fact="driver",
            values={f"{v}{'v' * 3000}": (f"n{v}" * 60,) * 50 for v in range(9)},
        )
        for n in range(1000)
    )
    result = aggregate(tmp_path).model_copy(update={"drift": drift})
    page = render_job_summary(Outcome(read_run(tmp_path), result))
    assert len(page) < 2**20
    assert "And 5900 more: the cluster summary lists all." in page


def test_a_valid_run(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    add_node(tmp_path, "jw2", asked(3), FAST)
    page = page_of(tmp_path)
    assert page.startswith("## LLM inference benchmark: VALID\n")
    assert page.endswith("\n**VALID:** every node of the run is counted and valid.\n")
    assert "Not counted" not in page


def test_no_run_says_why() -> None:
    page = render_job_summary(Outcome(broke="No run was opened.\n<b>x</b> is not a setting.", refused=True))
    assert page.startswith("## LLM inference benchmark: REFUSED\n")
    assert "- **The playbook:** \\<b\\>x\\</b\\> is not a setting.\n" in page


def test_a_thousand_broken_nodes_fit_a_page(tmp_path: Path) -> None:
    names = [f"gpu-{number:04}" for number in range(1000)]
    rows = tuple(NodeRow(node=name, status="failed", counted=False, reason="x" * 4000) for name in names)
    result = ClusterResult(
        run_id=RUN_ID, profile="quick", asked=1000, counted=0, nodes=rows, groups=(), overlap=None,
        verdict=Verdict(valid=False, reasons=("All failed.",)),
    )  # fmt: skip
    run_dir = make_run(tmp_path, {"gpu-0000": asked(3)})
    page = render_job_summary(Outcome(read_run(run_dir), result))
    assert len(page.encode()) < 2**20
    assert f"And {1000 - MAX_LISTED} more: the cluster summary lists all." in page


def test_what_a_node_did_alone_stands_beside_all_together(tmp_path: Path) -> None:
    resolved, samples, alone = asked(3), closed_loop([1000] * 3), closed_loop([800] * 3)
    run_dir = make_run(tmp_path, {"jw2": resolved})
    write_node(run_dir, often(result_of("jw2", resolved, samples), alone=alone), samples, alone=alone)
    gathered = gather(run_dir)
    page = render_job_summary(Outcome(gathered.run, gathered.result))
    table = page.split("### Alone, then together")[1]
    heads, row = cells(table)[:2]
    assert heads[:3] == ["node", "QPS alone", "together"]
    assert row == ["jw2", "1.25", "1.00", "-20.0%", "-20.0%", "+25.0%", "0.0%"]


# Everything that Markdown, HTML and GitHub read as markup, more often than chance would have it.
HOSTILE = st.text(st.sampled_from("|\\`*_~[]()<>#&!@:$=-+.1 \n\thttp://www.a;"), min_size=1, max_size=60)


@given(HOSTILE)
@example("| [x](http://a) | <script>alert(1)</script> \\| `")
@example("&lt;b&gt; &#124; \\")
@example("![x](http://a/x.png) **bold** ~~gone~~ <!-- ")
def test_what_a_node_says_stays_in_its_cell_and_is_only_text(text: str) -> None:
    page = f"| node | reason |\n| --- | --- |\n| jw2 | {escape(text)} |\n| jw3 | after |\n\n- x: {escape(text)}\n"
    assert cells(page) == [["node", "reason"], ["jw2", clean(text)], ["jw3", "after"]]
    kinds = {token.type for token in tokens(page) if token.type.partition("_")[0] not in ("table", "thead", "tbody")}
    assert kinds <= {
        "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close", "inline", "text", "text_special",
        "bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close", "paragraph_open",
        "paragraph_close",
    }  # fmt: skip


def test_a_time_of_day_is_readable_and_an_emoji_is_none() -> None:
    assert escape("2026-11-28 03:49:14 UTC") == "2026-11-28 03:49:14 UTC"
    assert escape("a:b :100: 1:100:1") == "a\\:b \\:100: 1\\:100\\:1"


def test_bare_addresses_are_no_links() -> None:
    # As GitHub links them: "www." and "://" may not be left whole.
    assert escape("see http://evil.example and WWW.evil.example") == "see http\\://evil.example and WWW\\.evil.example"
