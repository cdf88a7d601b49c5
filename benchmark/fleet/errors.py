"""What goes wrong with a node: an exception in the coroutine that speaks with it."""

from __future__ import annotations


class NodeError(Exception):
    """What went wrong with a node, in sentences for a person."""


class Excluded(NodeError):
    """The node is not to measure (any more): its run is stopped, and what there is fetched."""


class Lost(NodeError):
    """A session ended, or says nothing any more; the words are ssh's, or say how it fell silent. It may come back."""


class Refused(NodeError):
    """What the user's login shell runs there is no command of ours, or the node sends what nobody asked for."""


class Ended(Exception):
    """The run has ended where something else was waited for; `state` is its exit code, or how it is gone."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class ControllerGone(Exception):
    """The ansible-playbook that this belongs to is gone: nothing more is done, and nodes are left as they are."""
