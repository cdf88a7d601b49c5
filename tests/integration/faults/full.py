"""What a node's Python starts with, so that memory is full for it: the errors are torch's and Python's own."""

from __future__ import annotations

from pathlib import Path

from tests.integration.ssh_nodes import SESSION

# As torch 2.13 says it on a GPU.
CUDA_SAID = (
    "CUDA out of memory. Tried to allocate 1002.00 MiB. GPU 0 has a total capacity of 23.50 GiB of which 310.06 MiB is "
    "free. Process 4242 has 22.95 GiB memory in use. Of the allocated memory 22.60 GiB is allocated by PyTorch."
)
AFTER_IMPORT = """
import importlib.util, resource, sys
class After:
    def find_spec(self, name, path=None, target=None):
        if name != %(module)r:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            change(module)
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, After())
"""
AT_LOAD = """
def change(module):
    def full(*_, **__):
        import torch
        raise torch.OutOfMemoryError(%(said)r)
    module.PreTrainedModel.from_pretrained = classmethod(full)
"""
# The first query is the warm-up's.
IN_MID_RUN = """
def change(module):
    generate, asked = module.GenerationMixin.generate, []
    def full(self, *words, **more):
        asked.append(1)
        if len(asked) > 3:
            %(fill)s
        return generate(self, *words, **more)
    module.GenerationMixin.generate = full
"""
RAISE = f"import torch; raise torch.OutOfMemoryError({CUDA_SAID!r})"
LIMIT = "resource.setrlimit(resource.RLIMIT_AS, (1 << 28, -1)); asked.append(bytearray(1 << 30))"

# The file in the node's place that begins the leak.
LEAK = "leak"
LEAKING = """
import sys, threading, time
from pathlib import Path
def leak():
    while not Path(%r).exists():
        time.sleep(0.05)
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))
if sys.orig_argv[1:4] == ["-m", "benchmark", "run"]:
    threading.Thread(target=leak, daemon=True).start()
"""


def gpu_full_at_load(directory: Path) -> str:
    """Let a GPU have no room for the model."""
    return _after_import(directory, "transformers.modeling_utils", AT_LOAD % {"said": CUDA_SAID})


def gpu_full_in_mid_run(directory: Path) -> str:
    """Let a GPU have no room any more once some queries are answered."""
    return _after_import(directory, "transformers.generation.utils", IN_MID_RUN % {"fill": RAISE})


def node_full_in_mid_run(directory: Path) -> str:
    """Let the process get no memory of the node any more once some queries are answered: a limit of the kernel's."""
    return _after_import(directory, "transformers.generation.utils", IN_MID_RUN % {"fill": LIMIT})


def leak(directory: Path, place: Path) -> str:
    """Let the node's benchmark take memory without end once `LEAK` is in the node's place."""
    return _site(directory, LEAKING % str(place / LEAK))


def _after_import(directory: Path, module: str, change: str) -> str:
    return _site(directory, AFTER_IMPORT % {"module": module} + change)


def _site(directory: Path, program: str) -> str:
    directory.mkdir(parents=True)
    (directory / "sitecustomize.py").write_text(program)
    return f"{SESSION} PYTHONPATH={directory}\n"
