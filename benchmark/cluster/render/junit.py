"""A run as JUnit XML, which every CI system shows: a suite per node, a case per check of its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from benchmark.cluster.outcome import Outcome
from benchmark.probed import figures
from benchmark.records import Check, NodeRow, Verdict
from benchmark.text.columns import clean
from benchmark.text.descriptions import check_words
from benchmark.text.figures import probe_unit, probe_value
from benchmark.verdict import label

# The cluster's own suite; a node's name cannot contain a space.
CLUSTER = "all nodes"
VERDICT = "verdict"


def render_junit(outcome: Outcome) -> str:
    """Return the XML document.

    Every suite has the case `verdict`: passed if valid, a failure if invalid, an error if a node has no complete
    result. A failed check is a separate failure. Text from nodes is stripped of characters that XML cannot hold.
    """
    suites = [_node(row) for row in outcome.result.nodes] if outcome.result else []
    root = Element("testsuites", name="llm-datacenter-benchmark")
    root.extend([*suites, _cluster(outcome)])
    for suite in root:
        _count(suite)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _node(row: NodeRow) -> Element:
    suite = Element("testsuite", name=clean(row.node))
    if row.metrics is not None and row.metrics.duration_s is not None:
        suite.set("time", f"{row.metrics.duration_s:.3f}")
    if row.metrics is None and row.probes is not None:
        suite.set("time", f"{row.probes.seconds:.3f}")
    _probes(suite, row)
    if not row.counted:
        _tell(_case(suite, VERDICT), "error", row.status, row.reason)
        return suite
    _checks(suite, row.verdict.checks if row.verdict else ())
    _verdict(suite, row.verdict)
    return suite


def _probes(suite: Element, row: NodeRow) -> None:
    """Add each figure of the hardware as a property, named after the figure and where it was measured."""
    found = [(one, place) for one in figures(row.probes).values() for place in one.places]
    properties = SubElement(suite, "properties") if found else suite
    for one, place in found:
        name = f"{one.words}, {place.words}" if place.words else one.words
        value = f"{probe_value(place.value, one.unit)}{probe_unit(one.unit)}"
        SubElement(properties, "property", name=clean(name), value=clean(value))


def _cluster(outcome: Outcome) -> Element:
    suite = Element("testsuite", name=CLUSTER)
    result, run = outcome.result, outcome.run
    if result is not None and run is not None:
        suite.set("timestamp", clean(run.created_at))
        properties = SubElement(suite, "properties")
        for name in ("run_id", "profile", "disclaimer"):
            SubElement(properties, "property", name=name, value=clean(getattr(result, name)))
        _checks(suite, result.verdict.checks)
        _verdict(suite, result.verdict)
    if result is not None and result.partial:
        _tell(_case(suite, "whole run"), "error", "in progress" if result.in_progress else "partial", result.partial)
    if outcome.broke:
        _tell(_case(suite, "playbook"), "error", "refused" if outcome.refused else "broken", outcome.broke)
    if result is not None and result.problems:
        SubElement(suite, "system-err").text = _lines("\n".join(result.problems))
    return suite


def _checks(suite: Element, checks: Sequence[Check]) -> None:
    seen: Counter[str] = Counter()
    for check in checks:
        name = label(check.metric)
        seen[name] += 1
        # Cases with the same name would be taken for one.
        case = _case(suite, name if seen[name] == 1 else f"{name} ({seen[name]})")
        _, words = check_words(check)
        if check.passed:
            SubElement(case, "system-out").text = _lines(words)
        else:
            _tell(case, "failure", "check", words)


def _verdict(suite: Element, verdict: Verdict | None) -> None:
    case = _case(suite, VERDICT)
    if verdict is None or not verdict.valid:
        _tell(case, "failure", "invalid", "\n".join(verdict.reasons) if verdict else "There is no verdict.")


def _case(suite: Element, name: str) -> Element:
    return SubElement(suite, "testcase", classname=suite.get("name", ""), name=clean(name))


def _tell(case: Element, what: str, kind: str, reason: str) -> None:
    """Add a failure or an error: on one line as its message, which lists show, and in full as its text."""
    SubElement(case, what, type=kind, message=clean(reason)).text = _lines(reason)


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines())


def _count(suite: Element) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
