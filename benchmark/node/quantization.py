"""Weights in eight bits, through torchao: what the settings may ask for, and whether this machine can do it.

The linear layers are quantised while they are loaded, all but the last (`lm_head`): a scale per row of the weights, and
one per token of what is multiplied with them, worked out on the way (dynamic). Embeddings, norms and attention stay in
`benchmark_dtype`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any, Literal
from unittest.mock import patch

Choice = Literal["none", "int8", "fp8"]
# The first with units for it: Ada and Hopper.
FP8_CAPABILITY = (8, 9)
# What the scales add to the quantised weights, at most: four bytes a row of a thousand or more.
SCALES = 0.005


def missing(name: str, device: str, dtype: str) -> str | None:
    """Return why this machine cannot quantise so, as the end of a sentence; None: it can."""
    if name == "none":
        return None
    try:
        metadata.version("torchao")
    except metadata.PackageNotFoundError:
        return "the package torchao is not installed (run playbooks/provision.yml)"
    if name == "fp8":
        if device == "cpu":
            return "it needs a GPU"
        if dtype != "bfloat16":
            return "it needs benchmark_dtype: bfloat16, in which its products come"
        import torch

        capability = torch.cuda.get_device_capability(0)
        if capability < FP8_CAPABILITY:
            return (
                f"it needs a GPU of compute capability 8.9 (L4, L40S, H100 and later), and this one has "
                f"{capability[0]}.{capability[1]}; int8 is to be had"
            )
    return None


def scheme(name: str) -> Any:
    """Return torchao's configuration. It must not change torch's own settings, which other code depends on."""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8DynamicActivationInt8WeightConfig,
        PerRow,
    )

    kind = {"int8": Int8DynamicActivationInt8WeightConfig, "fp8": Float8DynamicActivationFloat8WeightConfig}[name]
    return kind(granularity=PerRow(), set_inductor_config=False)


def at_load(name: str) -> Any:
    """Return what transformers' `from_pretrained` takes as `quantization_config`."""
    if name == "none":
        return None
    from transformers import TorchAoConfig

    return TorchAoConfig(scheme(name))


def apply(model: Any, name: str) -> None:
    """Quantise a model that is loaded already, as `at_load` would have."""
    if name == "none":
        return
    import torch
    from torchao.quantization import quantize_

    last = model.get_output_embeddings()
    quantize_(model, scheme(name), lambda module, path: isinstance(module, torch.nn.Linear) and module is not last)


@contextmanager
def no_needless_import(name: str) -> Iterator[None]:
    """Within, transformers does not import torchao where nothing is to be quantised: half a second of every start."""
    from transformers import utils
    from transformers.utils import import_utils

    if name != "none":
        yield
        return
    with (
        patch.object(utils, "is_torchao_available", lambda *least: False),
        patch.object(import_utils, "is_torchao_available", lambda *least: False),
    ):
        yield


def weight_bytes(config: Mapping[str, Any], parameters: int, bytes_per_value: int) -> int:
    """Return what a model's quantised weights take on the device; `config` is its config.json."""
    tables = 1 if config.get("tie_word_embeddings") else 2
    # Norms and biases are too few to count: a thousandth.
    kept = min(parameters, tables * int(config["vocab_size"]) * int(config["hidden_size"]))
    return kept * bytes_per_value + round((parameters - kept) * (1 + SCALES))


def is_quantised(tensor: Any) -> bool:
    """Tell whether a parameter is one of torchao's."""
    return hasattr(tensor, "qdata")


def stored_bytes(tensor: Any) -> int:
    """Return what a parameter really takes."""
    if not is_quantised(tensor):
        return int(tensor.nbytes)
    return int(tensor.qdata.nbytes + tensor.scale.nbytes)
