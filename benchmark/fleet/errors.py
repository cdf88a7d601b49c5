"""Exceptions for what goes wrong with a node, raised in its coroutine."""

from __future__ import annotations


class NodeError(Exception):
    """A failure of a node, described in sentences for the user."""


class Excluded(NodeError):
    """The node must not measure, or no longer: its run is stopped, and its files are fetched."""


class Lost(NodeError):
    """A session ended or went silent; the message is ssh's, or says how it went silent. A new session may work."""


class Refused(NodeError):
    """The user's login shell does not run our command, or the node sends unexpected data."""


class Ended(Exception):
    """The run has ended while something else was awaited; `state` is its exit code, or says how it vanished."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class ControllerGone(Exception):
    """The ansible-playbook of this worker is gone: nothing more is done, and nodes are left as they are."""
