"""What tests of a node share."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.memory_cgroup import memory_cgroup


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """The file to which a process writes its pid to be in a cgroup that may take 100 MiB."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(memory_cgroup(f"llm-benchmark-{os.getpid()}", 100))
        except OSError as error:
            pytest.skip(f"no memory cgroup can be made here: {error}")
        yield made
