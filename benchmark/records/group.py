"""Several nodes as one copy of a model: who is in it, and what each says before anything is loaded."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text
from benchmark.records.system import ServerPlace


class GroupPart(Record):
    """One node's part in a group of nodes that serve one copy of a model."""

    name: Name = Field(description="the group's")
    rank: Count = Field(description="the node's place in the group; 0: it is the head, which is measured")
    places: Annotated[tuple[ServerPlace, ...], Field(min_length=2)] = Field(
        description="of all its nodes, the head first: where each is reached by the others"
    )

    @property
    def own(self) -> ServerPlace:
        """Where this node is reached."""
        return self.places[self.rank]

    @property
    def head(self) -> ServerPlace:
        """Where the nodes meet."""
        return self.places[0]

    @property
    def leads(self) -> bool:
        """Whether this node is the head."""
        return self.rank == 0


class GroupMember(Record):
    """What a node of a group says once it listens for the others."""

    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        description="beside its own, one that the system chose, as the engine's connections will have"
    )
    software: dict[Name, Text] = Field(description="what has to be alike: Python, and the packages of the engine")
