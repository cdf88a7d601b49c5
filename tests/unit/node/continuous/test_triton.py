"""Triton's kernels without a GPU: its interpreter computes what they say, and machine code is made for each GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmark.node.continuous import paged_kernel, prompt_kernel, triton_start

# Heads of a size that is no power of two, of requests that are read in parts, then each in one; a large group of heads.
TRIAL = """
from benchmark.node.continuous import flash, flash_kernels, paged_kernel, prompt_kernel
kernels = flash.Kernels("triton", paged_kernel.answer, prompt_kernel.read, flash_kernels.torchs_write)
for paged_kernel.ITEMS_PER_PROCESSOR, *heads in ((40, 24, 3, 2), (1, 24, 3, 2), (40, 16, 17, 1)):
    print(flash_kernels.trial(kernels, "cpu", "float32", flash_kernels.Heads(*heads)))
"""


def test_the_kernels_compute_what_exact_attention_does() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, check=True)
    apart = [float(line) for line in done.stdout.split()]
    assert len(apart) == 3
    assert max(apart) < 1e-5


def kinds(*arguments: Any) -> tuple[triton_start.Kind, ...]:
    return tuple(triton_start.kind(one) for one in arguments)


@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_machine_code_is_made_without_a_compiler(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    half, whole = torch.zeros(8, dtype=torch.bfloat16), torch.zeros(8, dtype=torch.int32)
    single = torch.zeros(8)
    sizes = {"HEADS": 8, "GROUP": 4, "SIZE": 48, "WIDTH": 64}
    answer = {"ROWS": 16, "SPLITS": 16}
    strides = 384, 48, 96, 48
    paged = half, half, half, whole, whole, whole, whole, half
    page = {"PAGE": 256, "STEP": 64}
    for kernel, arguments, constants in (
        (prompt_kernel._read, (*paged, 0.1, *strides), {**sizes, **page, "ROWS": 64}),
        (
            paged_kernel._answer,
            (*paged, single, single, 0.1, 99, *strides),
            {**sizes, **page, **answer},
        ),
        (paged_kernel._join, (single, single, whole, half, 99), {**sizes, "SPLITS": 16}),
    ):
        made = triton_start.compiled(kernel, kinds(*arguments), constants, 4, 2, architecture)
        assert made.asm["cubin"][:4] == b"\x7fELF"
        assert made.name == kernel.__name__


def test_numbers_of_a_step_make_no_other_code() -> None:
    whole = torch.zeros(9, dtype=torch.int32)
    assert triton_start.kind(whole) == ("*i32", True)
    assert triton_start.kind(whole[1:]) == ("*i32", False)
    assert triton_start.kind(1) == ("i32", False)  # Triton itself would take it for a constant
    assert (triton_start.kind(48), triton_start.kind(0.5)) == (("i32", True), ("fp32", False))


# A GPU's kind, and the KiB of a multiprocessor's own memory: a block of threads may have all of it but one.
@pytest.mark.parametrize(("architecture", "memory"), [(80, 164), (86, 100), (90, 228), (120, 100)])
def test_prompts_of_wide_heads_fit_each_kind_of_gpu(
    architecture: int, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    here = SimpleNamespace(shared_memory_per_multiprocessor=memory * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: here)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    device = SimpleNamespace(type="cuda")
    half, whole = torch.zeros(8, dtype=torch.bfloat16), torch.zeros(8, dtype=torch.int32)
    arguments = half, half, half, whole, whole, whole, whole, half, 0.1, 4096, 256, 512, 256
    sizes = {"HEADS": 16, "GROUP": 8, "SIZE": 256, "WIDTH": 256, "PAGE": 256, "STEP": prompt_kernel.BLOCK, "ROWS": 64}
    stages = prompt_kernel.stages.__wrapped__(256, device)
    made = triton_start.compiled(
        prompt_kernel._read, kinds(*arguments), sizes, prompt_kernel.WARPS, stages, architecture
    )
    assert made.metadata.shared <= (memory - 1) * 1024
    assert prompt_kernel.stages.__wrapped__(128, device) == prompt_kernel.STAGES
