"""What holds for all tests."""

# Before ansible-core: it replaces sys.intern by an object that torch._dynamo refuses to import beside. Only a test
# process holds both; a controller has no torch and a node no ansible-core.
import torch._dynamo  # noqa: F401
