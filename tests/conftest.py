"""What holds for all tests."""

# Before ansible-core: it replaces sys.intern by an object that torch._dynamo refuses to import beside. Only a test
# process holds both; a controller has no torch and a node no ansible-core.
import pytest
import torch._dynamo  # noqa: F401
from hypothesis import HealthCheck, settings

# No test depends on how fast a busy machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which docs/images is made again."""
    parser.addoption("--pictures", metavar="DIR", help="write the report's pictures there: docs/images")
