"""The directory tree of a submission, written atomically."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.audit import AUDIT_PREFIX, TEST06, verify_audit
from benchmark.cluster.submission import readmes
from benchmark.cluster.submission.logs import accuracy_text, verification_text, write_truncated
from benchmark.cluster.submission.parts import Part, Scenario, Submission
from benchmark.cluster.submission.rules import Division
from benchmark.cluster.submission.source import source_readme
from benchmark.cluster.submission.system_file import SystemFile
from benchmark.cluster.submission.systems import system_description
from benchmark.errors import InputError
from benchmark.loadgen_log import ACCURACY, ANSWERS, DETAIL, SUMMARY

USER_CONF = "user.conf"


def check_new(output: Path) -> None:
    """Raise InputError if the path exists."""
    if output.exists() or output.is_symlink():
        raise InputError(f"--output: {output} exists already; name a new directory.")


@contextmanager
def new_tree(output: Path) -> Iterator[Path]:
    """Yield a directory beside `output` that becomes `output` if the block succeeds, and is removed otherwise.

    Raises InputError if `output` exists or cannot be written.
    """
    check_new(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise InputError(f"--output: {output} cannot be written: {error.strerror}.") from error
    try:
        beside.chmod(0o755)
        yield beside
        beside.rename(output)
    except OSError as error:
        raise InputError(f"{error.filename or output}: {error.strerror}; nothing was written to {output}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_tree(output: Path, submission: Submission, answers: SystemFile, division: Division, submitter: str) -> Path:
    """Write the tree at `output`, which must not exist, and return it. Raises InputError if it cannot be written."""
    with new_tree(output) as root:
        _fill(root / division / submitter, submission, answers, division, submitter)
    return output


def system_names(submission: Submission, answers: SystemFile) -> dict[str, str]:
    """Return node -> the name of its system: nodes' own names are not published."""
    nodes = submission.nodes
    if len(nodes) == 1:
        return {nodes[0]: answers.directory}
    return {node: f"{answers.directory}-{number}" for number, node in enumerate(nodes, start=1)}


def _fill(root: Path, submission: Submission, answers: SystemFile, division: Division, submitter: str) -> None:
    for node, system in system_names(submission, answers).items():
        part = submission.parts(node)[0]
        suites = {benchmark.suite for benchmark, nodes in submission.benchmarks.items() if node in nodes}
        description = system_description(part, answers, division, submitter, ",".join(sorted(suites)))
        _write(root / "systems" / f"{system}.json", _json(description))
        for benchmark, nodes in submission.benchmarks.items():
            for name, scenario in nodes.get(node, {}).items():
                directory = root / "results" / system / benchmark.name / name
                _write_scenario(directory, name, scenario, division)
    parts = [part for node in submission.nodes for part in submission.parts(node)]
    _write(root / "src" / "README.md", source_readme(parts))
    if division == "closed":
        quantized = sorted({readmes.quantization(part) for part in parts} - {""})
        dtypes = sorted({readmes.dtype(part) for part in parts})
        text = readmes.render("calibration.md.j2", quantized=quantized, dtypes=dtypes)
        _write(root / "documentation" / "calibration.md", text)


def _write_scenario(directory: Path, name: str, scenario: Scenario, division: Division) -> None:
    first = scenario.parts[0]
    _write(directory / "measurements.json", _json(readmes.measurements(first)))
    _write(directory / "README.md", readmes.scenario_readme(name, scenario, division))
    if scenario.performance is not None:
        _copy_logs(scenario.performance, "", directory / "performance" / "run_1")
        _copy(scenario.performance.directory / USER_CONF, directory / USER_CONF)
        answers = scenario.performance.directory / ANSWERS
        if answers.is_file():
            write_truncated(_regular(answers), directory / "performance" / "run_1" / ANSWERS)
    if scenario.accuracy is not None and scenario.accuracy.result.accuracy is not None:
        _copy_logs(scenario.accuracy, ACCURACY, directory / "accuracy")
        log = _regular(scenario.accuracy.directory / f"{ACCURACY}{ANSWERS}")
        write_truncated(log, directory / "accuracy" / ANSWERS)
        _write(directory / "accuracy" / "accuracy.txt", accuracy_text(scenario.accuracy.result.accuracy.rouge, log))
        if scenario.performance is None:
            _copy(scenario.accuracy.directory / f"{ACCURACY}{USER_CONF}", directory / USER_CONF)
    if scenario.audit is not None and (audit := scenario.audit.result.audit) is not None:
        log = _regular(scenario.audit.directory / f"{AUDIT_PREFIX}{ANSWERS}")
        found = verify_audit(log.parent, audit.loadgen, audit.end_tokens)
        _write(directory / TEST06 / "verify_accuracy.txt", verification_text(found))
        # In full: reviewers check the audit's answers again.
        _copy(log, directory / TEST06 / "accuracy" / ANSWERS)
        _copy_logs(scenario.audit, AUDIT_PREFIX, directory / TEST06 / "performance" / "run_1")


def _copy_logs(part: Part, prefix: str, directory: Path) -> None:
    for name in (DETAIL, SUMMARY):
        _copy(part.directory / f"{prefix}{name}", directory / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_regular(source), target)


def _regular(path: Path) -> Path:
    # A file from a node may be a link to anywhere.
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path}: not a file of a run; nothing was written.")
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
