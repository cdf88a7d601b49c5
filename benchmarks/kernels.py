"""Measure the single parts of a step, in Llama-3.1-8B's shape: on an NVIDIA GPU, without any weights.

  layer      our kernels compared with torch's operations: times, and whether the results are the same
  products   a layer's products by number of tokens: some sizes take longer than larger ones
  answering  attention of requests of about 850 tokens, one new token each, compared with reading their keys
  reading    attention of prompts, or of later parts of prompts, compared with torch's flash attention

Each figure comes from a CUDA graph of several calls on different data, to exclude launching and the cache.

    python3 benchmarks/kernels.py [--parts layer,products,answering,reading]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.nn.functional import linear, rms_norm, silu

from benchmark.node.continuous import graphs, layout
from benchmark.node.continuous.flash import Attend
from benchmark.node.continuous.layer_kernels import load
from benchmarks.shapes import LLAMA_3_1_8B

HIDDEN, WIDE, LAYERS = (LLAMA_3_1_8B[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
HEADS, KV_HEADS, SIZE = LLAMA_3_1_8B["num_attention_heads"], LLAMA_3_1_8B["num_key_value_heads"], 128
PRODUCTS = {
    "query, key, value": ((HEADS + 2 * KV_HEADS) * SIZE, HIDDEN),
    "output": (HIDDEN, HIDDEN),
    "gate, up": (2 * WIDE, HIDDEN),
    "down": (HIDDEN, WIDE),
}
PAGE = 256
ROUNDS = 5


def timed_us(call: Callable[[int], Any], calls: int) -> float:
    """Return the microseconds of a call; each call gets its number."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for number in range(calls):
            call(number)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(calls):
            call(number)
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(ROUNDS):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / ROUNDS / calls * 1e3


def drawn(*shape: int) -> torch.Tensor:
    """Return random values in half precision."""
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda")


def layer() -> None:
    """Print the time of each of our kernels and of torch's operations."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    kernels = load("bfloat16")
    print(f"{'':>20} {'tokens':>7} {'ours, us':>9} {'torch, us':>10}  largest difference")
    for tokens in (1, 512, 2048):
        together = drawn(1, tokens, (HEADS + 2 * KV_HEADS) * SIZE)
        q, k, _ = together.split([HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE], dim=-1)
        q, k = (one.view(1, tokens, -1, SIZE).transpose(1, 2) for one in (q, k))
        angles = (torch.rand(1, tokens, SIZE // 2, device="cuda") * 6).repeat(1, 1, 2)
        turned = q, k, angles.cos().bfloat16(), angles.sin().bfloat16()
        both, states, weight = drawn(1, tokens, 2 * WIDE), drawn(1, tokens, HIDDEN), drawn(HIDDEN)
        pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "rotary": (partial(_queries, kernels.rotary, turned), partial(_queries, apply_rotary_pos_emb, turned)),
            "gate": (partial(kernels.gated, both, 0), partial(_gate, both)),
            "norm": (
                partial(kernels.norm, states, weight, 1e-5, 0, True),
                partial(rms_norm, states, (HIDDEN,), weight, 1e-5),
            ),
        }
        if tokens == 1:
            for name, (rows, size) in PRODUCTS.items():
                one, matrix = drawn(1, 1, size), drawn(rows, size) * size**-0.5
                pairs[name] = partial(kernels.multiply, one, matrix, None), partial(linear, one, matrix)
        for name, (ours, torchs) in pairs.items():
            apart = float((ours().float() - torchs().float()).abs().max())
            times = [timed_us(partial(_again, call), 20) for call in (ours, torchs)]
            print(f"{name:>20} {tokens:>7} {times[0]:>9.1f} {times[1]:>10.1f}  {apart:g}", flush=True)


def products() -> None:
    """Print the products of a layer by number of tokens."""
    # More matrices than fit in the GPU's cache, used in turn.
    matrices = {
        name: [drawn(rows, size) for _ in range(2 + 10**8 // rows // size)] for name, (rows, size) in PRODUCTS.items()
    }
    print(f"{'tokens':>7} {', us; '.join(PRODUCTS)}, us; all layers, ms; us a token")
    for tokens in graphs.sizes(graphs.GRAPH_TOKENS):
        each = []
        for name, some in matrices.items():
            states = drawn(1, tokens, PRODUCTS[name][1])
            each.append(timed_us(partial(_product, states, some), len(some)))
        whole_ms = LAYERS * sum(each) / 1e3
        shown = "; ".join(f"{one:.1f}" for one in each)
        print(f"{tokens:>7} {shown}; {whole_ms:.2f}; {1e3 * whole_ms / tokens:.2f}", flush=True)


def answering() -> None:
    """Print the time of attention in decode steps, and of reading their keys and values at the rate of a copy."""
    from benchmark.node.continuous import paged_kernel

    large = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    bytes_per_us = 2 * large.numel() / timed_us(partial(_again, large.clone), 2)
    draw = random.Random(780)  # noqa: S311 # no secret
    print(f"{'requests':>9} {'us':>7} {'floor, us':>10}")
    for requests in (1, 16, 48, 80, 160, 400):
        lengths = [min(2500, max(60, round(draw.lognormvariate(6.55, 0.47)))) for _ in range(requests)]
        pages = [-(-length // PAGE) for length in lengths]
        tables = torch.zeros(requests, max(pages), dtype=torch.int32)
        for number, count in enumerate(pages):
            tables[number, :count] = torch.arange(sum(pages[:number]), sum(pages[: number + 1]))
        now = layout.answering(tables.cuda(), torch.tensor(lengths, device="cuda"))
        caches = [[drawn(sum(pages), PAGE, KV_HEADS, SIZE) for _ in ("keys", "values")] for _ in range(3)]
        query = drawn(requests, HEADS, SIZE)
        out = torch.empty_like(query)
        taken = timed_us(partial(_attend, paged_kernel.answer, query, caches, now, out), 6)
        floor = sum(lengths) * 2 * KV_HEADS * SIZE * 2 / bytes_per_us
        print(f"{requests:>9} {taken:>7.1f} {floor:>10.1f}", flush=True)


# Per prompt: new tokens, earlier tokens.
PROMPTS = (((700, 0),), ((1024, 0),), ((300, 700),), ((450, 0), (450, 0)), ((500, 1500),), ((4096, 0),))


def reading() -> None:
    """Print the time of attention of prompts."""
    from benchmark.node.continuous import prompt_kernel

    kernel = torch.ops.aten._flash_attention_forward
    print(f"{'new tokens + earlier ones':>26} {'ours, us':>9} {'torch, us':>10} {'TFLOP/s':>8}")
    for prompts in PROMPTS:
        starts, whole, tiles, pages, first_pages = [0], [0], [], 0, []
        for number, (new, before) in enumerate(prompts):
            first_pages.append(pages)
            pages += -(-(new + before) // PAGE)
            tiles += layout.tiles_of(number, starts[-1], new, before)
            starts.append(starts[-1] + new)
            whole.append(whole[-1] + new + before)
        lengths = [new + before for new, before in prompts]
        lists = [0, len(tiles), 0, 0], lengths, first_pages, layout.longest_first(tiles), [*range(pages)]
        requests = layout.Requests(*(torch.tensor(one, dtype=torch.int32, device="cuda") for one in lists))
        caches = [[drawn(pages, PAGE, KV_HEADS, SIZE) for _ in ("keys", "values")] for _ in range(4)]
        query = drawn(starts[-1], HEADS, SIZE)
        taken = timed_us(partial(_attend, prompt_kernel.read, query, caches, requests, torch.empty_like(query)), 20)
        packed = [torch.tensor(one, dtype=torch.int32, device="cuda") for one in (starts, whole)]
        longest = max(new for new, _ in prompts), max(new + before for new, before in prompts)
        torchs = timed_us(partial(_packed, kernel, query, caches, whole[-1], packed, longest), 20)
        work = sum(4 * HEADS * SIZE * new * (before + (new + 1) / 2) for new, before in prompts)
        shown = ", ".join(f"{new} + {before}" for new, before in prompts)
        print(f"{shown:>26} {taken:>9.1f} {torchs:>10.1f} {work / taken / 1e6:>8.0f}", flush=True)


def _again(call: Callable[[], Any], number: int) -> Any:
    return call()


def _queries(rotary: Callable[..., Any], turned: tuple[Any, ...]) -> Any:
    return rotary(*turned)[0]


def _gate(both: Any) -> Any:
    gate, up = both.chunk(2, dim=-1)
    return silu(gate) * up


def _product(states: Any, matrices: list[Any], number: int) -> Any:
    return linear(states, matrices[number])


def _attend(attend: Attend, query: Any, caches: list[list[Any]], requests: layout.Requests, out: Any, n: int) -> None:
    keys, values = caches[n % len(caches)]
    attend(query, keys, values, requests, None, out)


def _packed(
    kernel: Any, query: Any, caches: list[list[Any]], tokens: int, starts: list[Any], longest: tuple[int, int], n: int
) -> Any:
    keys, values = (pages.flatten(0, 1)[:tokens] for pages in caches[n % len(caches)])
    return kernel(query, keys, values, *starts, *longest, 0.0, True, False, scale=SIZE**-0.5)


def main() -> int:
    """Run the requested parts."""
    parts = {"layer": layer, "products": products, "answering": answering, "reading": reading}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(parts), help="parts to run, in order")
    asked = parser.parse_args().parts.split(",")
    if not torch.cuda.is_available():
        print("These kernels need an NVIDIA GPU, and torch finds none here.", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    with torch.inference_mode():
        for part in asked:
            parts[part]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
