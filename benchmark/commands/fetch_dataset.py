"""`python3 -m benchmark fetch-dataset`: prepare CNN/DailyMail's articles as prompts, in the Hugging Face cache."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from benchmark.commands.fetch_model import add_common_arguments, read_input
from benchmark.errors import EXIT_VALID
from benchmark.node.hub.dataset import fetch_dataset
from benchmark.node.hub.fetch import fetch
from benchmark.node.hub.files import DATASET
from benchmark.node.watch.abandoned import end_with_reader
from benchmark.resolve import resolve
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION
from benchmark.settings.provisioning import DEFAULT_DATASET, DEFAULT_DATASET_REVISION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fetch-dataset`."""
    parser.add_argument("--dataset", default=DEFAULT_DATASET, metavar="ID", help="hub id (default: %(default)s)")
    parser.add_argument(
        "--revision", default=DEFAULT_DATASET_REVISION, metavar="REV", help="commit, tag or branch of the dataset"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="ID",
        help="the model whose tokenizer is used: hub id, or a directory on this machine",
    )
    parser.add_argument("--model-revision", default=DEFAULT_REVISION, metavar="REV", help="revision of a hub model")
    parser.add_argument(
        "--download-only",
        action="store_true",
        help="only download the dataset's files, without preparing them: for a controller",
    )
    add_common_arguments(parser, "fetch-dataset")


def main(arguments: argparse.Namespace) -> int:
    """Fetch and prepare, print {changed, path, sha256, prompts, commit, snapshot, missing} as one line of JSON.

    With --download-only the line is that of fetch-model.
    """
    end_with_reader()
    token, listing = read_input(listed=arguments.listing)
    options = {"check": arguments.check, "offline": arguments.offline, "listing": listing}
    done: Any
    if arguments.download_only:
        done = fetch(arguments.dataset, arguments.revision, arguments.cache_dir, token, kind=DATASET, **options)
    else:
        given = {
            "benchmark_model": arguments.model,
            "benchmark_model_revision": arguments.model_revision,
            "hf_cache_dataset": arguments.dataset,
            "hf_cache_dataset_revision": arguments.revision,
            "hf_cache_dir": str(arguments.cache_dir),
        }
        done = fetch_dataset(resolve(given).settings, token, **options)
    print(json.dumps(asdict(done)))
    return EXIT_VALID
