"""Show a node's progress: through the channel to `benchmark_live`, or printed."""

from __future__ import annotations

import time

import live_channel
from ansible.utils.display import Display

from benchmark.cluster.fleet import DONE, FAILED
from benchmark.progress import Progress, describe


def hand_on(node: str, before: Progress | None, progress: Progress) -> None:
    """Pass on the progress of a node's run; without a channel, show it when the stage changes."""
    if live_channel.channel is not None:
        live_channel.channel.send(node, progress)
    elif before is None or before.state != progress.state:
        show(node, describe(progress))


def at_stage(node: str, stage: str) -> None:
    """Report which role works on a node."""
    if live_channel.channel is not None:
        live_channel.channel.send(node, Progress(stage))


def finished(node: str, succeeded: bool) -> None:
    """Report that the work on a node has ended."""
    at_stage(node, DONE if succeeded else FAILED)


def show(node: str, words: str) -> None:
    """Show one line about a node."""
    Display().display(f"{time.strftime('%H:%M:%S')} {node}: {words}")
