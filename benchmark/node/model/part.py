"""One process's part of a model that is split over several: tensor parallelism by transformers' own plan."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmark.errors import SetupError
from benchmark.node.model.architecture import read_config, text_config
from benchmark.node.startup import Stages
from benchmark.provisioned import FROM_SERVERS

# For all processes to find each other, and to wait for one that is still reading its weights.
TIMEOUT = timedelta(minutes=30)


def own_part(parts: int) -> int:
    """Return the number of this process's part, from 0, as set in torchrun's variables."""
    return int(os.environ["RANK"]) if parts > 1 else 0


def require_parts(snapshot: Path, parts: int) -> None:
    """Raise SetupError if the model's heads cannot be split evenly over that many processes."""
    config = text_config(read_config(snapshot))
    heads = {name: getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads")}
    for name, count in heads.items():
        if isinstance(count, int) and count % parts:
            raise SetupError(
                f"tensor_parallel is {parts}, but the model in {snapshot} has {count} heads ({name}), which cannot be "
                f"split evenly: use a number that divides it, or {FROM_SERVERS}."
            )


def read_part(kind: Any, snapshot: Path, dtype: Any, device: str, parts: int, stages: Stages) -> tuple[Any, Any]:
    """Return the model with this process's part of the weights on its device, and transformers' loading report.

    All processes must call it at the same time. Raises SetupError if the model cannot be split.
    """
    import torch
    from torch.distributed.tensor import DTensor
    from transformers.distributed import DistributedConfig

    with stages.stage("meeting"):
        if device == "cpu":
            torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
        else:
            torch.distributed.init_process_group("nccl", timeout=TIMEOUT, device_id=torch.device(device))
    with stages.stage("weights"):
        model, found = kind.from_pretrained(
            snapshot,
            dtype=dtype,
            distributed_config=DistributedConfig(tp_size=parts),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise SetupError(
            f"transformers has no plan to split {type(model).__name__} over several GPUs: leave tensor_parallel out, "
            f"or use {FROM_SERVERS}."
        )
    return model, found
