"""What holds for all tests."""

import gc
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# For this process and what it starts. A tiny model gains nothing from a second thread, and while other processes want
# the cores too, torch's threads burn three times the processor by waiting for each other.
os.environ["OMP_NUM_THREADS"] = "1"

# Playbooks start hundreds of Python processes: what they import is compiled once, also where a machine (an image of a
# container, often) says that nothing compiled is to be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has them ignore it, and all that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on how fast a busy machine is. Each run draws other examples, and those that failed once come first:
# HYPOTHESIS_EXAMPLES=1000 draws as many at once.
settings.register_profile(
    "untimed",
    deadline=None,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


def pytest_collectstart() -> None:
    """Import torch before ansible-core, which replaces sys.intern by what torch._dynamo refuses to import beside.

    Only a test process holds both: a controller has no torch, a node no ansible-core, and the process that hands out
    the tests, which collects nothing, has use for neither.
    """
    gc.disable()  # until all is imported
    import torch._dynamo  # noqa: F401


def pytest_collection_finish() -> None:
    """Keep Python's collector from looking through what is imported by now, which is a million objects.

    Engines have it look through all there is when they start and when they stop; that they give back to it what they
    held apart is left out for that.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    pytest.MonkeyPatch().setattr(gc, "unfreeze", lambda: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which docs/images is made again."""
    parser.addoption("--pictures", metavar="DIR", help="write the report's pictures there: docs/images")
