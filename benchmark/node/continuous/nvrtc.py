"""CUDA C++ compiled on the node by NVRTC, which comes with torch: a compiler and CUDA's headers need not be there."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

_C_TYPES = {int: ctypes.c_int, float: ctypes.c_float}


def compiled(source: str, defines: Mapping[str, int], architecture: str) -> bytes:
    """Return the machine code for a GPU of that architecture, as "sm_90".

    Raises ImportError where NVRTC's bindings are not there, RuntimeError for what does not compile.
    """
    from cuda.bindings import nvrtc  # a CUDA build of torch requires them

    options = [f"--gpu-architecture={architecture}", *(f"-D{name}={value}" for name, value in defines.items())]
    program = _result(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if error:
        log = bytes(_result(nvrtc.nvrtcGetProgramLogSize(program)))
        nvrtc.nvrtcGetProgramLog(program, log)
        lines = log.decode(errors="replace").strip("\0 \n").splitlines()
        raise RuntimeError(f"NVRTC: {lines[0] if lines else error.name}")
    binary = bytes(_result(nvrtc.nvrtcGetCUBINSize(program)))
    _result(nvrtc.nvrtcGetCUBIN(program, binary))
    return binary


class Program:
    """Kernels for the GPU in use, from their source; raises as `compiled` does."""

    def __init__(self, source: str, defines: Mapping[str, int]) -> None:
        import torch

        major, minor = torch.cuda.get_device_capability()
        binary = compiled(source, defines, f"sm_{major}{minor}")
        from cuda.bindings import driver

        torch.zeros(1, device="cuda")  # makes the context in which the kernels are loaded
        self._module = _result(driver.cuModuleLoadData(binary))
        self._driver, self._torch = driver, torch
        self._kernels: dict[str, Any] = {}

    def launch(self, name: str, blocks: int, threads: int, *arguments: Any) -> None:
        """Start a kernel on the current stream: a tensor is a pointer there, None the null pointer, a float 32 bits."""
        if name not in self._kernels:
            self._kernels[name] = _result(self._driver.cuModuleGetFunction(self._module, name.encode()))
        values = tuple(one.data_ptr() if isinstance(one, self._torch.Tensor) else one or 0 for one in arguments)
        types = tuple(_C_TYPES.get(type(one), ctypes.c_void_p) for one in arguments)
        stream = self._torch.cuda.current_stream().cuda_stream
        sizes = blocks, 1, 1, threads, 1, 1
        _result(self._driver.cuLaunchKernel(self._kernels[name], *sizes, 0, stream, (values, types), 0))


def _result(answer: tuple[Any, ...]) -> Any:
    """Return what a call of the bindings answers beside its error code. Raises RuntimeError."""
    error, *results = answer
    if error:
        raise RuntimeError(f"CUDA error: {error.name.removeprefix('CUDA_ERROR_').replace('_', ' ').lower()}")
    return results[0] if results else None
