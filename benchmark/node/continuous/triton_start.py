"""Launch Triton kernels on a node without a C compiler: Triton makes the machine code, CUDA's driver launches it.

Triton's own launcher is C code that it compiles on the node. It is used for GPUs of other vendors, and in Triton's
interpreter.
"""

# mypy: disable-error-code="import-not-found,unused-ignore"

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmark.node.continuous.cuda_module import CudaModule

# Triton reads more at once if a tensor's address, or a number, is divisible by this.
ALIGNED = 16
TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.int32: "i32"}
THREADS_OF_WARP = 32

Kind = tuple[str, bool]
"""Triton's name for an argument's type, and whether it is a multiple of 16."""


def start(kernel: Any, programs: int, *arguments: Any, num_warps: int, num_stages: int = 1, **constants: int) -> None:
    """Launch so many programs of a kernel on the current stream. `arguments`: tensors, int and float, in order."""
    if not isinstance(kernel, triton.JITFunction) or torch.version.cuda is None:
        kernel[(programs,)](*arguments, **constants, num_warps=num_warps, num_stages=num_stages)
        return
    kinds = tuple(kind(one) for one in arguments)
    here = torch.cuda.current_device(), *torch.cuda.get_device_capability()
    module, name, shared = _loaded(kernel, kinds, tuple(constants.items()), num_warps, num_stages, here)
    # Triton's kernels have two more parameters, scratch memory that these do not use.
    module.launch(name, programs, THREADS_OF_WARP * num_warps, *arguments, None, None, shared=shared)


def kind(argument: Any) -> Kind:
    """Return what Triton must know about an argument. Numbers are never treated as constants."""
    if isinstance(argument, torch.Tensor):
        return f"*{TYPES[argument.dtype]}", argument.data_ptr() % ALIGNED == 0
    return ("fp32", False) if isinstance(argument, float) else ("i32", argument % ALIGNED == 0)


def compiled(
    kernel: Any, kinds: tuple[Kind, ...], constants: dict[str, int], num_warps: int, num_stages: int, architecture: int
) -> Any:
    """Return Triton's compiled kernel, with the machine code, for a GPU of that architecture, such as 90."""
    varying = {param.name for param in kernel.params if param.do_not_specialize}
    given = dict(zip((name for name in kernel.arg_names if name not in constants), kinds, strict=True))
    signature = {name: given[name][0] if name in given else "constexpr" for name in kernel.arg_names}
    aligned = [name for name, (_, multiple) in given.items() if multiple and name not in varying]
    source = ASTSource(
        kernel,
        signature,
        {(kernel.arg_names.index(name),): value for name, value in constants.items()},
        {(kernel.arg_names.index(name),): [["tt.divisibility", ALIGNED]] for name in aligned},
    )
    target = GPUTarget("cuda", architecture, THREADS_OF_WARP)
    made = triton.compile(source, target=target, options={"num_warps": num_warps, "num_stages": num_stages})
    if getattr(made.metadata, "global_scratch_size", 0):
        raise RuntimeError(f"the kernel {made.name} needs scratch memory, which is not provided")
    return made


@functools.cache
def _loaded(
    kernel: Any,
    kinds: tuple[Kind, ...],
    constants: tuple[tuple[str, int], ...],
    num_warps: int,
    num_stages: int,
    here: tuple[int, int, int],
) -> tuple[CudaModule, str, int]:
    _, major, minor = here
    made = compiled(kernel, kinds, dict(constants), num_warps, num_stages, 10 * major + minor)
    return CudaModule(made.asm["cubin"]), made.name, made.metadata.shared
