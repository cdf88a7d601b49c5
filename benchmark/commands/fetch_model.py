"""`python3 -m benchmark fetch-model`: download a model's snapshot into the Hugging Face cache and verify it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from benchmark.errors import EXIT_VALID, InputError
from benchmark.node.hub.cache import Manifest
from benchmark.node.hub.fetch import fetch
from benchmark.node.watch.abandoned import end_with_reader
from benchmark.settings import Settings
from benchmark.settings.by_hand import from_environment
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION, is_directory_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fetch-model`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="ID", help="hub id (default: %(default)s)")
    parser.add_argument(
        "--revision", default=DEFAULT_REVISION, metavar="REV", help="commit, tag or branch; only a commit is pinned"
    )
    parser.add_argument(
        "--min-free-gb", type=float, default=0, metavar="N", help="least free disk space for the weights, in GB"
    )
    add_common_arguments(parser, "fetch-model")


def add_common_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of all commands that download from the hub."""
    home = from_environment().get("hf_cache_dir") or Settings.model_fields["hf_cache_dir"].default
    parser.epilog = (
        "A token for a gated repository is read from the first line of standard input, to keep it out of the process "
        f"list: printenv HF_TOKEN | python3 -m benchmark {command}. Prints one line of JSON. "
        "Honours HF_HOME and HF_ENDPOINT."
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=Path(home),
        metavar="DIR",
        help="the Hugging Face cache, HF_HOME (default: %(default)s)",
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, only report whether something would change"
    )
    parser.add_argument("--offline", action="store_true", help="download nothing, only verify existing files")
    parser.add_argument(
        "--listing",
        action="store_true",
        help="after the token, read the snapshot's manifest from standard input, as a controller sends it",
    )


def main(arguments: argparse.Namespace) -> int:
    """Fetch, print {changed, snapshot, commit, bytes, files, missing} as one line of JSON, return the exit code."""
    end_with_reader()
    if is_directory_path(arguments.model):
        raise InputError(f"{arguments.model} is a directory: there is nothing to download.")
    token, listing = read_input(listed=arguments.listing)
    fetched = fetch(
        arguments.model,
        arguments.revision,
        arguments.cache_dir,
        token,
        check=arguments.check,
        offline=arguments.offline,
        min_free_gb=arguments.min_free_gb,
        listing=listing,
    )
    print(json.dumps(asdict(fetched)))
    return EXIT_VALID


def read_input(*, listed: bool) -> tuple[str | None, Manifest | None]:
    """Return the token, and with `listed` the manifest, from standard input unless it is a terminal."""
    if sys.stdin.isatty():
        return None, None
    token = sys.stdin.readline().strip() or None
    if not listed:
        return token, None
    try:
        return token, Manifest.model_validate_json(sys.stdin.read()).unverified()
    except ValidationError:
        raise InputError("--listing: standard input is not a snapshot's manifest.") from None
