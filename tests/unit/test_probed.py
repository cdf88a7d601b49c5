"""What a node's probes come to, and the text of one node."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.node.probes.found import of_scope
from benchmark.node.probes.interfaces import Scope
from benchmark.probed import column, figures, in_order
from benchmark.records.probes import HardwareProbes
from benchmark.text.columns import WIDTH, columns
from benchmark.text.node_result import render_node
from tests.unit.building import add_probed, hardware, make_run, probes

CHECKOUT = Path(__file__).parents[2]


def test_median_and_worst_of_gpus_and_pairs() -> None:
    found = figures(probes(8, slow=5))
    read = found["device_memory_read"]
    assert (read.median, read.worst.words) == (4100, "GPU 5")
    assert read.worst.value == pytest.approx(3280)
    assert read.off == pytest.approx(-0.2)
    assert found["kernel_launch"].off is None
    pairs = found["peer_copy"]
    assert (len(pairs.places), pairs.worst.words, pairs.worst.name) == (56, "GPU 0 to 1", "peer_copy_0_to_1")
    assert found["all_reduce"].worst.words == ""
    # 38 looks at one GPU, 39 at the other: a count, whatever it is of.
    assert (found["wrong_products"].unit, found["wrong_products"].better) == ("", None)


def test_lower_is_better_where_the_unit_says_so() -> None:
    both = HardwareProbes.model_validate(
        {
            "seconds": 1,
            "gpus": [
                {"index": index, "figures": {"kernel_launch": {"value": value, "unit": "us"}}}
                for index, value in ((0, 2.0), (1, 4.0))
            ],
        }
    )
    launch = figures(both)["kernel_launch"]
    assert launch.worst.gpu == 1
    assert launch.off == pytest.approx(1 / 3)


def test_figures_that_are_not_ranked_come_last() -> None:
    names = [one.name for one in in_order([figures(probes(2)), figures(None)])]
    assert names.index("cpu_one_core") < names.index("sustained_clock")
    assert figures(None) == {}


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("device_memory_read", "GB/s", "probe_device_memory_read_gb_s"),
        ("matrix_int8", "TOP/s", "probe_matrix_int8_top_s"),
        ("wrong_products", "", "probe_wrong_products"),
    ],
)
def test_names_of_columns(name: str, unit: str, expected: str) -> None:
    assert column(name, unit) == expected


def test_text_of_a_node_with_eight_gpus(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": hardware()})
    add_probed(tmp_path, "gpu1", hardware(), probes(8, slow=5, notes=("GPU 3: sustained: out of memory.",)))
    result = gather(tmp_path).nodes[0].result
    assert result is not None
    text = render_node(result)
    assert "device memory read          4100 GB/s      3280 GB/s on GPU 5, -20.0%\n" in text
    assert "peer copy                    384 GB/s      380 GB/s on GPU 0 to 1\n" in text
    assert "cpu one core                 600 MB/s\n" in text
    assert "* GPU 3: sustained: out of memory.\n" in text
    assert "Queries" not in text
    assert max(map(columns, text.splitlines())) <= WIDTH


def test_text_of_a_node_without_probes_or_checks(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": hardware(benchmark_device="cpu")})
    add_probed(tmp_path, "gpu1", hardware(benchmark_device="cpu"), probes(0))
    result = gather(tmp_path).nodes[0].result
    assert result is not None
    assert "Checks" not in render_node(result)
    assert "Hardware probes" not in render_node(result.model_copy(update={"probes": None}))


def _names(module: ModuleType) -> set[str]:
    """Return what a probe calls its figures, as patterns: what stands in an f-string may be any word."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            pairs = zip([node.targets[0].slice], [node.value], strict=True)
        else:
            continue
        for key, value in pairs:
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Figure":
                assert key is not None
                found.add(_pattern(key, module))
    return found


def _pattern(key: ast.expr, module: ModuleType) -> str:
    if isinstance(key, ast.JoinedStr):
        return "".join(
            re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[\w<>]+" for part in key.values
        )
    return re.escape(str(key.value) if isinstance(key, ast.Constant) else getattr(module, ast.unparse(key)))


def test_every_figure_has_a_row_in_the_docs_and_none_else() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (CHECKOUT / "docs" / "probes.md").read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    modules = [module for scope in get_args(Scope) for module in of_scope(scope)]
    patterns = {pattern: module.__name__ for module in modules for pattern in _names(module)}
    assert set(patterns.values()) == {module.__name__ for module in modules}
    missing = {
        pattern: name for pattern, name in patterns.items() if not any(re.fullmatch(pattern, d) for d in documented)
    }
    assert missing == {}
    assert {name for name in documented if not any(re.fullmatch(pattern, name) for pattern in patterns)} == set()
