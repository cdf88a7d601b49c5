"""Load and launch machine code for an NVIDIA GPU with CUDA's driver: no compiler is needed."""

from __future__ import annotations

import ctypes
from typing import Any

_C_TYPES = {int: ctypes.c_int, float: ctypes.c_float}
# Shared memory that a kernel may use without opting in to more.
SHARED_BYTES = 48 * 1024


class CudaModule:
    """Kernels for the GPU in use. Raises ImportError without the driver's bindings, RuntimeError if it fails."""

    def __init__(self, binary: bytes) -> None:
        import torch
        from cuda.bindings import driver

        torch.zeros(1, device="cuda")  # creates the context in which the kernels are loaded
        self._module = result(driver.cuModuleLoadData(binary))
        self._driver, self._torch = driver, torch
        self._kernels: dict[str, Any] = {}

    def launch(self, name: str, blocks: int, threads: int, *arguments: Any, shared: int = 0) -> None:
        """Launch a kernel on the current stream; tensors are passed as pointers, None as null, floats as 32 bits.

        `shared`: bytes of shared memory per block. Arguments beyond the kernel's parameters are ignored.
        """
        if name not in self._kernels:
            self._kernels[name] = self._get(name, shared)
        values = tuple(one.data_ptr() if isinstance(one, self._torch.Tensor) else one or 0 for one in arguments)
        types = tuple(_C_TYPES.get(type(one), ctypes.c_void_p) for one in arguments)
        stream = self._torch.cuda.current_stream().cuda_stream
        sizes = blocks, 1, 1, threads, 1, 1
        result(self._driver.cuLaunchKernel(self._kernels[name], *sizes, shared, stream, (values, types), 0))

    def _get(self, name: str, shared: int) -> Any:
        kernel = result(self._driver.cuModuleGetFunction(self._module, name.encode()))
        if shared > SHARED_BYTES:
            most = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            result(self._driver.cuFuncSetAttribute(kernel, most, shared))
        return kernel


def result(answer: tuple[Any, ...]) -> Any:
    """Return what a call of the bindings returned besides its error code. Raises RuntimeError for an error code."""
    error, *results = answer
    if error:
        raise RuntimeError(f"CUDA error: {error.name.removeprefix('CUDA_ERROR_').replace('_', ' ').lower()}")
    return results[0] if results else None
