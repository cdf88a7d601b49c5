import os

import pytest

from benchmark.errors import SetupError
from benchmark.node.environment import validate_environment


def test_on_the_cpu_the_node_is_described_without_a_gpu() -> None:
    environment = validate_environment("cpu")
    assert environment.cpu_count == len(os.sched_getaffinity(0))
    assert environment.gpus == ()
    assert environment.packages["torch"]
    assert environment.memory_mib > 100


def test_cuda_without_a_gpu_never_falls_back() -> None:
    import torch

    if torch.cuda.is_available():
        assert validate_environment("cuda").gpus
        return
    with pytest.raises(SetupError, match=r"build without CUDA|No GPU is usable"):
        validate_environment("cuda")
