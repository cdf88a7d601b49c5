"""Compile CUDA C++ on the node with NVRTC, which comes with torch: no compiler or CUDA headers are needed."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.node.continuous.cuda_module import CudaModule, result


def compiled(source: str, defines: Mapping[str, int], architecture: str) -> bytes:
    """Return the machine code for a GPU of that architecture, such as "sm_90".

    Raises ImportError if NVRTC's bindings are missing, RuntimeError if the source does not compile.
    """
    from cuda.bindings import nvrtc  # a CUDA build of torch requires them

    options = [f"--gpu-architecture={architecture}", *(f"-D{name}={value}" for name, value in defines.items())]
    program = result(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if error:
        log = bytes(result(nvrtc.nvrtcGetProgramLogSize(program)))
        nvrtc.nvrtcGetProgramLog(program, log)
        lines = log.decode(errors="replace").strip("\0 \n").splitlines()
        raise RuntimeError(f"NVRTC: {lines[0] if lines else error.name}")
    binary = bytes(result(nvrtc.nvrtcGetCUBINSize(program)))
    result(nvrtc.nvrtcGetCUBIN(program, binary))
    return binary


def load(source: str, defines: Mapping[str, int]) -> CudaModule:
    """Return a source's kernels for the GPU in use; raises as `compiled` and `CudaModule` do."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return CudaModule(compiled(source, defines, f"sm_{major}{minor}"))
