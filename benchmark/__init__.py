"""The datacenter LLM benchmark: measures LLM inference on GPU nodes and judges whether it reaches its target."""

__version__ = "0.2.0"

DISCLAIMER = "unverified, not an MLCommons submission"
