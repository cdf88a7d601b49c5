"""In the place of a CUDA graph: operations on the tensors that were there when it was recorded, and nothing else.

At a replay no Python runs, numbers are those of then, and what was made on the way is of no use afterwards: another
graph may have taken its memory. What waits for the GPU, to know a value or a size, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

CAPTURING = "operation not permitted when stream is capturing"
SYNCHRONIZING = "called a synchronizing CUDA operation"
# Each waits for the GPU, to know a value or a size.
WAITING = (
    *("_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "_unique2", "unique_dim", "is_nonzero"),
    *("equal", "bincount", "unique_consecutive"),
)
# What a CPU looks at that a GPU does not.
WHOLE = ("one_hot",)


class Recorded:
    """Stands in for a CUDA graph."""

    now: Recorded | None = None
    """The one that is being recorded."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []
        self._made: dict[int, torch.Tensor] = {}
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this thread computes; nothing of it has happened afterwards."""
        Recorded.now = self
        try:
            with _Asked(), _Noted(self):
                yield
        finally:
            Recorded.now = None
            with torch.inference_mode():
                for whole, kept in self._before.values():
                    whole.copy_(kept)
            self._spoil()

    def replay(self) -> None:
        """Do it again, with what lies in memory now."""
        with torch.inference_mode():
            for call in self._calls:
                call()
        self._spoil()

    def reset(self) -> None:
        """As transformers ends a graph."""

    def note(self, call: Callable[[], object]) -> None:
        """Have it done at every replay."""
        self._calls.append(call)

    def made(self, tensor: torch.Tensor) -> None:
        """Note what lies in the graph's own memory."""
        self._made[tensor.untyped_storage().data_ptr()] = tensor

    def written(self, tensor: torch.Tensor) -> None:
        """Note what is written to, before it is."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._made and storage.data_ptr() not in self._before:
            with torch.inference_mode():
                whole = torch.empty(0, dtype=tensor.dtype).set_(storage)
                self._before[storage.data_ptr()] = whole, whole.clone()

    def _spoil(self) -> None:
        with torch.inference_mode():
            for tensor in self._made.values():
                tensor.fill_(torch.nan if tensor.is_floating_point() else tensor.dtype.is_signed * 101)


class _Asked(TorchFunctionMode):  # type: ignore[misc] # torch has no types here
    """Refuses what brings values from the host to the GPU, or back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (name in ("tensor", "as_tensor") and kwargs.get("device") is not None) or name in ("cpu", "numpy", "tolist"):
            raise RuntimeError(_refusal(name))
        return func(*args, **kwargs)


class _Noted(TorchDispatchMode):  # type: ignore[misc] # torch has no types here
    """Notes every operation in a graph, or without one only refuses those that a graph cannot hold."""

    def __init__(self, graph: Recorded | None) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").partition(".")[0]
        counted = func.name() == "aten::repeat_interleave.Tensor" and kwargs.get("output_size") is None
        if name in WAITING or counted or (name.startswith("index") and _by_truth(args)):
            raise RuntimeError(_refusal(name))
        if name not in WHOLE and _is_composite(func):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        writes = [
            value
            for position, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
            for value in tree_leaves(args[position] if position < len(args) else kwargs.get(argument.name))
            if isinstance(value, torch.Tensor)
        ]
        if self._graph is None:
            return func(*args, **kwargs)
        for one in writes:
            self._graph.written(one)
        out = func(*args, **kwargs)
        outs = [one for one in tree_leaves(out) if isinstance(one, torch.Tensor)]
        lying = {one.untyped_storage().data_ptr() for one in given}
        fresh = [one for one in outs if one.untyped_storage().data_ptr() not in lying]
        for one in fresh:
            self._graph.made(one)
        if fresh:
            self._graph.note(lambda: _again(func, args, kwargs, outs))
        elif writes:
            self._graph.note(lambda: func(*args, **kwargs))
        return out


def _again(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> None:
    found = [one for one in tree_leaves(func(*args, **kwargs)) if isinstance(one, torch.Tensor)]
    for one, new in zip(outs, found, strict=True):
        if one.data_ptr() != new.data_ptr():
            one.copy_(new)


def _refusal(name: str) -> str:
    return f"{SYNCHRONIZING if Recorded.now is None else CAPTURING} ({name})"


def _by_truth(args: Any) -> bool:
    places = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in places)


def _is_composite(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


class Waiting:
    """In the place of torch's mode in which whatever waits for the GPU is refused."""

    def __init__(self) -> None:
        self.mode: int | str = 0
        self._modes = ExitStack()

    def set(self, mode: int | str) -> None:
        """As `torch.cuda.set_sync_debug_mode`."""
        self._modes.close()
        self.mode = mode
        if mode == "error":
            self._modes.enter_context(_Asked())
            self._modes.enter_context(_Noted(None))


class Graph(Recorded):
    """In the place of `graphs.Graph`."""

    def __init__(self, pool: Any, run: Callable[[], None]) -> None:
        super().__init__()
        with self.recording():
            run()


def as_one(attend: Callable[..., None], writes: Callable[..., list[torch.Tensor]]) -> Callable[..., None]:
    """Return a kernel that a graph holds as one operation."""

    def start(*arguments: Any) -> None:
        if graph := Recorded.now:
            for one in writes(*arguments):
                graph.written(one)
            graph.note(lambda: attend(*arguments))
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            attend(*arguments)

    return start
