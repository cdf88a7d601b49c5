"""The kernels compile for the GPUs there are, and refuse what they are not for. Whether they are right a GPU says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark.node.continuous import nvrtc
from benchmark.node.continuous.layer_kernels import ROWS, SOURCE, THREADS, LayerKernels, missing

KERNELS = ("rotary", "rms_norm", "write_rows", "gated", "multiply", "multiply_gated")


class Noted:
    """In a program's place: what would be started."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []

    def launch(self, *arguments: Any) -> None:
        self.started.append(arguments)


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.mark.parametrize(("architecture", "bfloat16"), [("sm_75", 0), ("sm_80", 1), ("sm_90", 1), ("sm_120", 1)])
def test_nvrtc_compiles_them(architecture: str, bfloat16: int) -> None:
    code = nvrtc.compiled(SOURCE.read_text(), {"BFLOAT16": bfloat16, "ROWS": ROWS, "THREADS": THREADS}, architecture)
    assert all(name.encode() in code for name in KERNELS)


def test_what_does_not_compile_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"NVRTC: kernels.cu\(1\): error: identifier \"unknown\" is undefined"):
        nvrtc.compiled("__device__ int x = unknown;", {}, "sm_90")


def test_a_kernel_is_started_for_everything_there_is(noted: Noted) -> None:
    kernels = LayerKernels(noted, torch.float16)  # type: ignore[arg-type]
    qkv = torch.zeros(1, 300, 8 * 32, dtype=torch.float16)
    q, k, v = (part.view(1, 300, -1, 32) for part in qkv.split([4 * 32, 2 * 32, 2 * 32], dim=-1))
    cos = torch.zeros(1, 300, 32, dtype=torch.float16)
    answers = kernels.rotary(q.transpose(1, 2), k.transpose(1, 2), cos, cos)
    assert [tuple(one.shape) for one in answers] == [(1, 4, 300, 32), (1, 2, 300, 32)]
    name, blocks, threads, *given = noted.started.pop()
    assert (name, given[-8:]) == ("rotary", [300, 4, 2, 32, 256, 32, 256, 32])
    assert blocks * threads * 16 >= 300 * 6 * 32 > (blocks - 1) * threads * 16  # a thread turns eight pairs

    pages = torch.zeros(4, 128, 2, 32, dtype=torch.float16)
    kernels.write(k[0], v[0], torch.zeros(300, dtype=torch.int64), pages, pages)
    name, blocks, threads, *given = noted.started.pop()
    assert (name, given[-5:]) == ("write_rows", [300, 64, 256, 256, 64])
    assert blocks * threads * 8 >= 300 * 64 > (blocks - 1) * threads * 8

    # A model may have query, key and value of each head lie together.
    apart = [part[0] for part in torch.rand(1, 300, 2, 3 * 32, dtype=torch.float16).chunk(3, dim=-1)]
    kernels.write(apart[1], apart[2], torch.zeros(300, dtype=torch.int64), pages, pages)
    name, _, _, key, value, *given = noted.started.pop()
    assert (name, given[-5:]) == ("write_rows", [300, 64, 64, 64, 64])
    assert key.equal(apart[1])
    assert value.equal(apart[2])

    assert kernels.norm(q, cos[0, 0], 1e-5, 0, True).shape == q.shape  # of each head: they lie in longer rows
    name, blocks, threads, *given = noted.started.pop()
    assert (name, blocks, threads, given[3:6]) == ("rms_norm", 1200, 32, [32, 4, 256])

    assert kernels.gated(qkv, 0).shape == (1, 300, 128)
    weight = torch.zeros(10, 128, dtype=torch.float16)
    assert kernels.multiply(qkv[:, :1, :128], weight, None).shape == (1, 1, 10)
    assert noted.started.pop()[:2] == ("multiply", 3)
    assert kernels.multiply_gated(qkv[:, :1, :128], weight, None, 1).shape == (1, 1, 5)
    assert noted.started.pop()[:2] == ("multiply_gated", 3)
    noted.started.clear()
    many = qkv[..., :128].contiguous()
    assert kernels.multiply(many, weight, None).shape == (1, 300, 10)
    assert not noted.started  # more than one token: the library's product


def test_what_eight_values_at_once_cannot_read_is_refused(noted: Noted) -> None:
    kernels = LayerKernels(noted, torch.float32)  # type: ignore[arg-type]
    odd, cos = torch.zeros(1, 2, 3, 36), torch.zeros(1, 3, 36)
    calls: list[Any] = [
        lambda: kernels.rotary(odd, odd, cos, cos),  # half a head is no multiple of 8
        lambda: kernels.rotary(odd[..., :32], odd[..., :32], cos[..., :32], cos[..., :32]),  # nor is a row
        lambda: kernels.norm(odd, cos[0, 0], 1e-5, 0, True),
        lambda: kernels.gated(torch.zeros(1, 3, 72)[..., ::2], 0),
        lambda: kernels.write(odd[0], odd[0], torch.zeros(2), odd, odd[:, :, :1]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="do not support tensors of this shape or layout"):
            call()
    assert not noted.started


def test_what_is_of_another_precision_is_refused(noted: Noted) -> None:
    kernels = LayerKernels(noted, torch.bfloat16)  # type: ignore[arg-type]
    whole, half = torch.zeros(1, 2, 3, 32), torch.zeros(1, 2, 3, 32, dtype=torch.bfloat16)
    pages = torch.zeros(4, 16, 3, 32)
    calls: list[Any] = [
        lambda: kernels.rotary(whole, whole, whole[0, :1], whole[0, :1]),
        lambda: kernels.norm(whole, half[0, 0, 0], 1e-5, 0, True),
        lambda: kernels.norm(half, whole[0, 0, 0], 1e-5, 0, True),
        lambda: kernels.gated(whole, 0),
        lambda: kernels.write(whole[0], whole[0], torch.zeros(2), pages, pages),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="do not support tensors of this shape or layout"):
            call()
    # The router of some experts is float32 whatever else a model is: one token of it is the library's product too.
    assert kernels.multiply(whole[:, :1, :1], torch.zeros(4, 32), None).shape == (1, 1, 1, 4)
    assert not noted.started


def test_angles_of_other_places_are_not_turned_by(noted: Noted) -> None:
    kernels = LayerKernels(noted, torch.float32)  # type: ignore[arg-type]
    q, cos = torch.zeros(1, 4, 3, 32), torch.zeros(1, 3, 32)
    assert kernels.turns(q, q, cos, cos)
    others = (q[0], q[0], cos, cos), (q, q, cos[:, :1], cos[:, :1]), (q, q, cos[0], cos[0]), (q, q[:, :, :2], cos, cos)
    assert not any(kernels.turns(*other) for other in others)
    # A row that begins in the middle of what is read at once.
    shifted = torch.zeros(1, 4, 3, 40)[..., 1:33]
    assert not kernels.turns(shifted, q, cos, cos)


def test_without_a_gpu_they_are_missing_and_it_is_said() -> None:
    missing.cache_clear()
    assert missing("float32") == "RuntimeError: there are no kernels for float32"
    assert missing("bfloat16")
