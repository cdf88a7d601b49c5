"""What is shown of a node while it is worked at: handed on to whoever draws, or printed."""

from __future__ import annotations

import time

import live_channel
from ansible.utils.display import Display

from benchmark.cluster.fleet import DONE, FAILED
from benchmark.progress import Progress, describe


def hand_on(node: str, before: Progress | None, progress: Progress) -> None:
    """Hand on what a node's run says of itself; where nobody listens, show it when the stage changes."""
    if live_channel.channel is not None:
        live_channel.channel.send(node, progress)
    elif before is None or before.state != progress.state:
        show(node, describe(progress))


def at_stage(node: str, stage: str) -> None:
    """Say which role is at a node."""
    if live_channel.channel is not None:
        live_channel.channel.send(node, Progress(stage))


def finished(node: str, succeeded: bool) -> None:
    """Say that nothing more is done with a node."""
    at_stage(node, DONE if succeeded else FAILED)


def show(node: str, words: str) -> None:
    """Show one line of a node's."""
    Display().display(f"{time.strftime('%H:%M:%S')} {node}: {words}")
