"""Several nodes that serve one copy of a model: their parts, and what each reports before loading anything."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text
from benchmark.records.system import ServerPlace


class GroupPart(Record):
    """One node's part in a group of nodes that serve one copy of a model."""

    name: Name = Field(description="the group's name")
    rank: Count = Field(description="the node's place in the group; 0: the head, which is measured")
    places: Annotated[tuple[ServerPlace, ...], Field(min_length=2)] = Field(
        description="the address of each of its nodes for the others, the head's first"
    )

    @property
    def own(self) -> ServerPlace:
        """The node's own address."""
        return self.places[self.rank]

    @property
    def head(self) -> ServerPlace:
        """The head's address."""
        return self.places[0]

    @property
    def leads(self) -> bool:
        """Whether this node is the head."""
        return self.rank == 0


class GroupMember(Record):
    """What a node of a group reports once it listens for the others."""

    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        description="besides its own, one chosen by the system, like those of the engine's connections"
    )
    software: dict[Name, Text] = Field(description="versions that must be equal: Python, and the engine's packages")
