"""The engine continuous as it runs on a GPU, on a CPU: what only a GPU has is replaced by what refuses the same.

Graphs are those of `recorded`. The kernels for attention and for layers compute in torch's operations what they compute
on a GPU, and refuse tensors that they would read wrongly there. Memory is planned for a GPU, and inputs have two pairs.

Not here: memory of two devices, streams that run at the same time, and the kernels' own code.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import torch
from transformers.generation.continuous_batching import initialization, input_outputs, model_runner

from benchmark.node.continuous import exact_attention, flash, flash_kernels, fused, graphs, layout, manager
from benchmark.node.continuous.layer_kernels import TOGETHER
from benchmark.node.continuous.prompt_steps import PromptSteps
from benchmark.node.engines import continuous
from benchmark.node.model.load import LoadedModel, load_model
from benchmark.settings import Settings
from tests import architectures, recorded
from tests.recorded import Graph, Recorded, Waiting, as_one
from tests.unit.node.continuous.plain_kernels import PlainKernels

# Small enough that a CPU runs a step of every kind in a second or so. The models have 512 positions, fewer than a step.
OPTIONS = {
    "page_size": 64,
    "num_blocks": 64,
    "max_batch_tokens": 640,
    "max_requests_per_batch": 8,
    "max_blocks_per_request": 2,
    "graph_tokens": 160,
}
# Of several lengths together: in one page and more, in more than a table has room for, in more than a graph.
PROMPTS = (5, 40, 23, 17, 60, 300, 130, 1, 64, 65)


# Kernels that are told how rows lie.
STRIDED = ("rotary", "rms_norm", "write_rows")


class LaidKernels(PlainKernels):
    """Look also at where tensors begin: a kernel reads eight values from there, 16 bytes of half precision."""

    def _take(self, name: str, blocks: int, threads: int, *arguments: Any) -> None:
        super()._take(name, blocks, threads, *arguments)
        for one in arguments:
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                assert not one.data_ptr() // one.element_size() % TOGETHER, f"{name}: begins between what is read"
                assert name in STRIDED or one.is_contiguous(), f"{name}: lies apart"


class Stream:
    """In the place of a CUDA stream: what is started has ended."""

    device = torch.device("cpu")

    def synchronize(self) -> None:
        """Nothing runs."""

    def wait_event(self, event: Any) -> None:
        """Nothing runs."""

    def record_event(self, event: Any = None) -> None:
        """Nothing runs."""


def _laid(query: Any, pages_k: Any, pages_v: Any, requests: layout.Requests, scale: Any, out: Any) -> None:
    """Look at tensors as the kernels take them for: they know no other strides than those they are given."""
    assert query.stride(-1) == 1, "values of a query lie apart"
    assert all(one.is_contiguous() for one in (pages_k, pages_v, out, *vars(requests).values()))
    assert (pages_k.shape, query.shape) == (pages_v.shape, out.shape)
    assert not pages_k.shape[1] % flash_kernels.PAGE_MULTIPLE
    assert query.dtype == pages_k.dtype == pages_v.dtype == out.dtype
    assert all(one.dtype == torch.int32 for one in vars(requests).values())
    assert scale is None or isinstance(scale, float)


def _answer(*arguments: Any) -> None:
    _laid(*arguments)
    exact_attention.answer(*arguments)


def _read(*arguments: Any) -> None:
    _laid(*arguments)
    exact_attention.read(*arguments)


def attention_kernels(dtype: torch.dtype) -> flash.Kernels:
    """Return what stands in for Triton's kernels."""
    layers = LaidKernels(dtype)

    def write(key: Any, value: Any, rows: Any, pages_k: Any, pages_v: Any) -> None:
        layers.write(key, value, rows, pages_k, pages_v)
        assert (rows.dtype, rows.is_contiguous(), pages_k.is_contiguous()) == (torch.int64, True, True)
        flash_kernels.torchs_write(key, value, rows, pages_k, pages_v)

    return flash.Kernels(
        "as on a GPU",
        as_one(_answer, lambda *arguments: [arguments[-1]]),
        as_one(_read, lambda *arguments: [arguments[-1]]),
        as_one(write, lambda *arguments: [*arguments[-2:]]),
    )


def serve(settings: Settings, **options: Any) -> tuple[bool, dict[str, Any]]:
    """Answer as on a GPU; return whether all tokens are those of transformers' own `generate`, and the details."""
    given = architectures.queries(PROMPTS)
    there = settings.model_copy(update={"benchmark_device": "cuda", "benchmark_dtype": "bfloat16"})
    found, details = architectures.load_and_ask(there, "continuous", {**OPTIONS, **options}, given)
    return found == architectures.generated(settings, given), details


def outcome(family: str, tokenizer: Path, directory: Path, dtype: str) -> str:
    """Return one line of the table of `architectures`."""
    try:
        settings = architectures.save(family, directory, tokenizer)
        with as_gpu(dtype):
            same, details = serve(settings)
    except Exception as error:  # a family's own code raises what it likes, and the table goes on
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    said = "the same tokens" if same else "other tokens"
    return f"{said}; {details['attention']}; {details['cuda_graphs']}; {details['cross_check']}; {details['fused']}"


@contextmanager
def as_gpu(dtype: str = "float32", waiting: Sequence[str] = ()) -> Iterator[None]:
    """Have the engine believe that it has a GPU, on which these operations of torch's wait for values too."""
    precise, strict = getattr(torch, dtype), Waiting()
    choose, make, wanted = flash_kernels.choose, manager.make_manager, graphs.wanted
    choose.cache_clear()

    def load(settings: Settings, **more: Any) -> LoadedModel:
        here = {"benchmark_device": "cpu", "benchmark_dtype": dtype}
        loaded = load_model(settings.model_copy(update=here), **more)
        for (
            weights
        ) in loaded.model.parameters():  # of a file they lie anywhere; on a GPU each begins a place of its own
            weights.data = weights.data.clone()
        return loaded

    def make_manager(model: Any, config: Any, options: Any, attention: str, *more: Any) -> Any:
        if "flash" in attention:
            options = options.model_copy(update={"use_cuda_graph": (False, True), "use_async_batching": True})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one of the options is no option
            return make(model, config, options, attention, *more)

    replaced = [
        (continuous, "load_model", load),
        (continuous, "free_bytes", lambda: 8 * 2**30),
        (manager, "make_manager", make_manager),
        (graphs, "wanted", lambda options, device: wanted(options, "cuda")),
        (graphs, "Graph", Graph),
        # Timed it is all the same: else which sizes are kept would differ from run to run.
        (PromptSteps, "_timed", lambda steps, size: size),
        (flash_kernels, "triton_kernels", lambda _: attention_kernels(precise)),
        (flash_kernels, "choose", lambda device, _, heads: choose("cpu", dtype, heads)),
        (fused, "missing", lambda _: None),
        (fused, "load", lambda _: LaidKernels(precise)),
        (torch.cuda, "is_current_stream_capturing", lambda: Recorded.now is not None),
        (torch.cuda, "set_sync_debug_mode", strict.set),
        (torch.cuda, "get_sync_debug_mode", lambda: strict.mode),
        (recorded, "WAITING", (*recorded.WAITING, *waiting)),
        (torch, "Event", lambda *about, **more: Mock()),
        (initialization, "get_accelerator_graph_name", lambda: "CUDAGraph"),
        (input_outputs, "create_device_stream", lambda device: Stream()),
        (input_outputs, "stream_context", lambda stream: nullcontext()),
        (input_outputs.ContinuousBatchingAsyncIOs, "_supported_device_types", ("cpu",)),
        (model_runner, "stream_context", lambda stream: nullcontext()),
        (model_runner, "get_memory_pools", lambda: (None, 0)),
        (model_runner, "memory_pool_context", lambda pool: nullcontext()),
        (model_runner, "create_accelerator_graph", Recorded),
        (model_runner, "accelerator_graph_capture_context", lambda graph, **about: graph.recording()),
    ]
    with ExitStack() as stack:
        for place, name, other in replaced:
            stack.enter_context(patch.object(place, name, other))
        yield
    choose.cache_clear()
