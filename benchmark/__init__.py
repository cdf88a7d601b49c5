"""The datacenter LLM benchmark: measure LLM inference on GPU nodes and say whether it reaches its target."""

__version__ = "0.2.0"

DISCLAIMER = "unverified, not an MLCommons submission"
