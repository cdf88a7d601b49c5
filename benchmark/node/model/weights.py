"""Read safetensors files in pieces, several at a time, directly to the device: a faster backend for transformers.

transformers maps the files into memory and copies from there: page by page from the disk, through memory that the GPU
cannot read itself; and if the files' precision is not the requested one, it converts on the CPU. Here several threads
read pieces into pinned memory, each goes to the device unconverted, and the device converts. The rest of loading (which
tensor belongs where, what is tied) is still transformers' own.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PIECE_BYTES = 16 * 2**20
READERS = 4


class Reader:
    """Threads that read pieces of files onto one device, and the time they take."""

    def __init__(self, device: str, readers: int = READERS) -> None:
        import torch

        self.bytes = 0
        self.readers = readers
        self._device = torch.device(device)
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="weights")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._disk_s = self._transfer_s = 0.0

    def read(self, file: int, offset: int, size: int) -> Any:
        """Return `size` bytes of an open file as a byte tensor on the device; raises OSError if it is too short."""
        import torch

        target = torch.empty(size, dtype=torch.uint8, device=self._device)
        fill = self._straight if self._device.type == "cpu" else self._through_pinned
        pieces = [
            self._pool.submit(fill, target[begin : begin + PIECE_BYTES], file, offset + begin)
            for begin in range(0, size, PIECE_BYTES)
        ]
        for piece in pieces:
            piece.result()
        return target

    def seconds(self) -> tuple[float, float]:
        """Return each thread's average time for reading, and for the transfer to the device."""
        return self._disk_s / self.readers, self._transfer_s / self.readers

    def close(self) -> None:
        """End the threads, which releases the pinned memory."""
        self._pool.shutdown()

    def _straight(self, target: Any, file: int, offset: int) -> None:
        began = time.monotonic()
        _fill(target, file, offset)
        self._add(len(target), time.monotonic() - began, 0.0)

    def _through_pinned(self, target: Any, file: int, offset: int) -> None:
        import torch

        began = time.monotonic()
        if not hasattr(self._own, "pinned"):
            self._own.pinned = torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
            self._own.arrived = torch.cuda.Event()
        piece = self._own.pinned[: len(target)]
        _fill(piece, file, offset)
        read = time.monotonic()
        with torch.cuda.device(self._device):
            target.copy_(piece, non_blocking=True)
            self._own.arrived.record()
        self._own.arrived.synchronize()  # before the pinned memory is used again
        self._add(len(target), read - began, time.monotonic() - read)

    def _add(self, size: int, disk_s: float, transfer_s: float) -> None:
        with self._lock:
            self.bytes += size
            self._disk_s += disk_s
            self._transfer_s += transfer_s


@contextmanager
def reading(device: str, readers: int = READERS) -> Iterator[Reader]:
    """Within the block, transformers reads safetensors files through a Reader."""
    from transformers import modeling_utils

    plain, reader = modeling_utils.safe_open, Reader(device, readers)
    modeling_utils.safe_open = lambda path, *how, **more: _File(path, plain(path, *how, **more), reader)
    try:
        yield reader
    finally:
        modeling_utils.safe_open = plain
        reader.close()


class _File:
    """An open safetensors file; everything else is passed to the library's own, which has validated the file."""

    def __init__(self, path: Any, plain: Any, reader: Reader) -> None:
        self._plain = plain
        self._reader = reader
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 # closed by `__exit__`, or with this object
        length = int.from_bytes(self._file.read(8), "little")
        self._header = json.loads(self._file.read(length))
        self._begin = 8 + length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        self._plain.__exit__(*error)

    def get_slice(self, name: str) -> Any:
        """Return the tensor of that name, which is read on `[...]`."""
        begin, end = self._header[name]["data_offsets"]
        plain = self._plain.get_slice(name)
        return _Tensor(plain, lambda: self._reader.read(self._file.fileno(), self._begin + begin, end - begin))


class _Tensor:
    """A tensor that is still in its file."""

    def __init__(self, plain: Any, read: Callable[[], Any]) -> None:
        self._plain = plain
        self._read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def __getitem__(self, which: Any) -> Any:
        kind = _kinds().get(self._plain.get_dtype())
        if which is not Ellipsis or kind is None:
            return self._plain[which]
        return self._read().view(kind).reshape(self._plain.get_shape())


def _kinds() -> dict[str, Any]:
    """Return torch's types by their names in the files, for the types that models use."""
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16} | {
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "U8": torch.uint8, "I8": torch.int8,
        "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    }  # fmt: skip


def _fill(target: Any, file: int, offset: int) -> None:
    """Read until the byte tensor, in CPU memory, is full."""
    view = memoryview(target.numpy())
    while view:
        count = os.preadv(file, [view], offset)
        if count == 0:
            raise OSError("a file of weights ends before its last tensor")
        view, offset = view[count:], offset + count
