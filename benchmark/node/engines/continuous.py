"""transformers' continuous batching: many queries in flight on one device, over a paged KV cache."""

from __future__ import annotations

import atexit
import dataclasses
import gc
import itertools
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import JsonValue

from benchmark.continuous_options import Options
from benchmark.errors import InputError, RunError, SetupError
from benchmark.node import interfaces
from benchmark.node.continuous import attention as kernels
from benchmark.node.continuous import cross_check, fused
from benchmark.node.continuous.fused import Fused
from benchmark.node.continuous.memory_plan import Plan, free_bytes, make_plan
from benchmark.node.continuous.router import Flight, Router, Waiting
from benchmark.node.interfaces import EngineBroken, Listener, Prompt, Query
from benchmark.node.model.architecture import Look, read_config, require_batching, text_config
from benchmark.node.model.files import check_files
from benchmark.node.model.generation import end_tokens, generation_config
from benchmark.node.model.load import (
    BYTES_PER_PARAMETER,
    LoadedModel,
    find_snapshot,
    load_model,
)
from benchmark.node.model.prompting import encode
from benchmark.node.options import check
from benchmark.node.startup import Stages, process_age_s
from benchmark.records import EngineInfo

# What `close` waits for the generation thread to end its step, and for the listeners to hear.
CLOSE_S = 10.0
# On a CPU transformers would take 60 % of the memory for the cache and plan steps of 8192 tokens.
CPU_CACHE_TOKENS = 32_768
CPU_BATCH_TOKENS = 512
# What transformers says by a number of pages below one.
TOO_LARGE = " Memory is short: lower max_batch_tokens or num_blocks, or end what else uses it."
UNPLANNED = (
    "GPU memory: what a token of this architecture takes is not known, so there is no plan; transformers sizes the "
    "cache (num_blocks, max_batch_tokens and max_memory_percent in benchmark_engine_options decide it)."
)
# How many queries the check before a run asks where there are no graphs to go through.
CHECKED_WITHOUT_GRAPHS = 4


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python's collector still: freeing what lies on the GPU in the middle of a capture would end the process."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Engine(interfaces.Engine):
    """One replica. Pages are never shared between queries: repeated prompts would look faster than they are.

    With sampling, an answer depends on what else was in flight: the generation thread draws from one seeded stream.
    """

    replicable = True
    _fused: Fused | None = None
    _memory: Plan | None = None
    _look: Look | None = None
    _greedily: Mapping[str, bool] | None = None
    """What to say with a query that is to be answered without sampling; None: there is no way."""
    _freely: Mapping[str, int] | None = None
    """What to say with a query whose answer may end at once; None: that holds for all."""

    def load(self) -> EngineInfo:
        """Load the model and start the generation thread; raises as `start` does."""
        options = self._check()
        snapshot, dtype = find_snapshot(self.settings), self.settings.benchmark_dtype
        parameters = check_files(snapshot)
        self._look = require_batching(read_config(snapshot))
        plan = None
        if self.settings.benchmark_device != "cpu":
            weights = parameters * BYTES_PER_PARAMETER[dtype]
            plan = self._plan(options, self._look, BYTES_PER_PARAMETER[dtype], weights)
            print(plan.sentence() if plan else UNPLANNED, file=sys.stderr, flush=True)
        return self.start(load_model(self.settings), plan)

    def start(self, loaded: LoadedModel, plan: Plan | None = None) -> EngineInfo:
        """Get ready with a model that is loaded already; without a plan for the GPU's memory, make one.

        Raises InputError for options or generation settings that the engine does not have, SetupError where the cache
        does not fit, the attention asked for is not there, or the architecture is not one that can be batched.
        """
        import torch

        options, stages = self._check(), Stages()
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        if self._look is None:
            self._look = require_batching(self._model.config)
        with stages.stage("attention"):
            self._attention = self._choose_attention(options)
        if self._model.device.type != "cpu" and plan is None:
            plan = self._plan(options, self._look, self._model.dtype.itemsize, 0)
        self._memory = plan
        end = [-1] if self._fixed_length else end_tokens(loaded)
        config = generation_config(loaded, self.generation, self.generation.temperature, eos_token_id=end)
        try:
            with stages.stage("cache"):
                self._manager = self._make_manager(config, options)
                self._insert_processors(end_tokens(loaded))
                self._router = Router(self._manager)
                self._manager.output_router = self._router
                if self._is_fusing(options):
                    self._fused = Fused(self._model)
                    self._fused.on()
                if self._attention == kernels.TORCH_FLASH:
                    from benchmark.node.continuous import flash_kernels, step_runner

                    self._kernels = flash_kernels.choose(
                        *self._device_and_dtype(), kernels.head_size(text_config(self._model.config))
                    )
                    step_runner.prepare(self._manager, self._kernels, options.max_blocks_per_request)
            with stages.stage("warm_up"), _uncollected():  # compiles, and captures CUDA graphs, where these are on
                self._manager.warmup()
            if captured := getattr(self._manager.batch_processor.model_runner, "capture_s", 0.0):
                stages.add("warm_up", -captured)
                stages.add("capture", captured)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise SetupError(
                f"Continuous batching cannot start: {' '.join(str(error).split())}. Memory is short: lower "
                "max_batch_tokens, num_blocks or max_memory_percent, or end what else uses it."
            ) from error
        except (ValueError, ImportError, RuntimeError) as error:
            remedy = TOO_LARGE if "num_sectors" in str(error) else ""
            raise SetupError(f"Continuous batching cannot start: {' '.join(str(error).split())}.{remedy}") from error
        self._requests = itertools.count()
        resolved = self._manager.continuous_batching_config
        self._cache_tokens = resolved.num_blocks * options.page_size
        # A thread is a daemon if its maker is: transformers' own would keep a process alive that wants to end.
        atexit.register(self.close)  # a thread that is left in the middle of a step would abort the process
        starter = threading.Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()
        self._router.start()
        details = self._details(resolved, options, end)
        with stages.stage("cross_check"):
            details["cross_check"] = self._cross_check()
        # What is loaded by now stays. Python would look through half a million objects again and again, and hold up all
        # queries for a quarter of a second each time.
        gc.collect()
        gc.freeze()
        before: Any = loaded.details.get("startup_s") or {}
        details["startup_s"] = {**before, **stages.seconds, "since_process_start": process_age_s()}
        return EngineInfo(name="continuous", details=loaded.details | details)

    def submit(self, query: Query, listener: Listener) -> None:
        """Hand the query to the generation thread and return.

        Raises EngineBroken when that thread is gone, RunError for a query that could never be answered.
        """
        if self._router.broken is not None:
            raise EngineBroken(self._router.broken)
        more: Mapping[str, bool] = {}
        if query.greedy and self.generation.temperature > 0:
            if self._greedily is None:
                raise RunError(
                    "This transformers samples all queries or none: for a greedy query set temperature to 0."
                )
            more = self._greedily
        token_ids = encode(self._tokenizer, query.prompt)
        self._check_prompt(token_ids)
        request_id = str(next(self._requests))
        self._router.add(request_id, Flight(query, listener, len(token_ids)))
        taken = self._manager.add_request(token_ids, request_id=request_id, streaming=True, **more)
        if taken is None and self._router.withdraw(request_id):
            fatal = self._manager.background_thread_status.fatal_error
            raise EngineBroken(f"The engine has stopped: {fatal or 'it was closed'}.")

    def close(self) -> None:
        """Stop within about twenty seconds; queries in flight fail."""
        manager = getattr(self, "_manager", None)
        if manager is None:
            return
        del self._manager
        atexit.unregister(self.close)
        if manager.is_running():
            manager.stop(block=True, timeout=CLOSE_S, hard_stop=True)
        self._router.close(CLOSE_S)
        if self._fused is not None:
            self._fused.off()
        gc.unfreeze()

    def _cross_check(self) -> JsonValue:
        """Raise SetupError where the engine answers otherwise than the plain model; None: with sampling it may."""
        if self.generation.temperature > 0:
            return None
        config = self._manager.continuous_batching_config
        graphs = any(config.cuda_graph_booleans)
        requests = config.max_requests_per_batch if graphs else CHECKED_WITHOUT_GRAPHS
        requests = max(1, min(requests, self._cache_tokens // 2 // max(64, config.page_size)))
        late = min(cross_check.LATE_TOKENS, self._cache_tokens // 4)
        asked = cross_check.probes(requests, self._model.config.get_text_config().vocab_size, late)
        answers = self._ask(asked)
        checked = [*range(min(cross_check.CHECKED, requests)), -1]
        if self._fused is not None:
            self._fused.off()
        kernels.use(self._model, kernels.plain(self._needs))
        try:
            short = cross_check.shortfalls(
                self._model, [asked[number] for number in checked], [answers[number] for number in checked]
            )
        finally:
            kernels.use(self._model, self._used_attention)
            if self._fused is not None:
                self._fused.on()
        worst = max(short)
        if worst > cross_check.tolerance(self._device_and_dtype()[1]):
            self.close()
            raise SetupError(
                f"The engine does not answer as the model itself would: of {len(short)} tokens the worst lies "
                f"{worst:.2f} standard deviations below the model's choice. Set fuse: false, use_cuda_graph: false or "
                "attention: sdpa in benchmark_engine_options to find what is wrong here."
            )
        return {"tokens": len(short), "same": sum(one == 0 for one in short), "worst": round(worst, 4)}

    def _ask(self, asked: Sequence[cross_check.Probe]) -> list[tuple[int, ...]]:
        """Ask all, the last when the others answer already, and wait for the answers in their full length."""
        waiting = Waiting(len(asked))
        for number, probe in enumerate(asked):
            if number == len(asked) - 1:
                waiting.first.wait()
            request_id = f"check-{number}"
            query = Query(number, Prompt(request_id, "", probe.token_ids), 0)
            self._router.add(request_id, Flight(query, waiting, len(probe.token_ids)))
            self._manager.add_request(
                list(probe.token_ids),
                request_id,
                max_new_tokens=probe.output_tokens,
                eos_token_id=-1,
                streaming=True,
                **(self._freely or {}),  # as the plain model does, against which they are held
            )
        return waiting.answers()

    def _check(self) -> Options:
        options = check(Options, self.options, "engine_options of the continuous engine")
        if self.settings.benchmark_device == "cpu" and (options.use_cuda_graph or options.use_async_batching):
            raise InputError("engine_options: use_cuda_graph and use_async_batching need a GPU; this is the CPU.")
        return options

    @property
    def _fixed_length(self) -> bool:
        return self.generation.min_new_tokens == self.generation.max_new_tokens

    def _choose_attention(self, options: Options) -> str:
        device, dtype = self._device_and_dtype()
        config = text_config(self._model.config)
        if options.attention == "auto":
            return kernels.automatic(config, device, dtype, self._needs)
        reason = kernels.missing(options.attention, config, device, dtype, self._needs)
        if reason is not None:
            raise SetupError(f"engine_options: attention {options.attention} is not to be had: {reason}.")
        return options.attention

    def _is_fusing(self, options: Options) -> bool:
        device = self._model.device.type
        if options.fuse is False or (options.fuse is None and device == "cpu"):
            return False
        reason = fused.missing(device)
        if options.fuse and reason is not None:
            raise ValueError(f"fuse: true: {reason}")
        return reason is None

    @property
    def _needs(self) -> frozenset[str]:
        return self._look.needs if self._look is not None else frozenset()

    def _plan(self, options: Options, look: Look, bytes_per_value: int, weights: int) -> Plan | None:
        if look.sizes is None:
            return None
        pages = options.num_blocks
        needed = self.generation.max_new_tokens + 1 if pages is None else pages * options.page_size
        chosen = options.max_batch_tokens, options.max_requests_per_batch, options.max_memory_percent
        return make_plan(look.sizes, bytes_per_value, free_bytes(), weights, needed, options.page_size, *chosen)

    def _device_and_dtype(self) -> tuple[str, str]:
        return self._model.device.type, str(self._model.dtype).removeprefix("torch.")

    def _make_manager(self, config: Any, options: Options) -> Any:
        from transformers import ContinuousBatchingConfig

        own = self._attention == kernels.TORCH_FLASH
        asked = {
            **options.model_dump(exclude={"attention", "compile_level", "fuse", "scheduler"}),
            "default_compile_level": options.compile_level,
            "scheduler_type": options.scheduler,
            "allow_block_sharing": False,
            "auto_switch_to_flash": False,
            "seed": self.generation.seed,
        }
        if self._model.device.type == "cpu":
            asked["num_blocks"] = options.num_blocks or max(2, CPU_CACHE_TOKENS // options.page_size)
            asked["max_batch_tokens"] = options.max_batch_tokens or CPU_BATCH_TOKENS
        elif "flash" in self._attention:
            # Graphs for steps in which all requests answer: `warmup` captures those. Steps of mixed lengths would
            # capture a graph for each new size in the middle of the measuring window.
            if options.use_cuda_graph is not False:
                asked["use_cuda_graph"] = (bool(options.use_cuda_graph) and not own, True)
            if options.use_async_batching is None:
                asked["use_async_batching"] = True
        if "flash" in self._attention and self._memory is not None:
            # With a mask over all tokens of the cache, only transformers knows what that takes.
            plan = self._memory
            asked["num_blocks"] = options.num_blocks or plan.cache_tokens // options.page_size
            asked["max_batch_tokens"], asked["max_requests_per_batch"] = plan.batch_tokens, plan.requests
            asked["max_memory_percent"] = 1.0  # the plan leaves room, and knows of limits that transformers does not
        known = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
        older = "auto_switch_to_flash" not in known
        if older:  # transformers 5.17: another name for the pages, and only a paged attention is left as it is
            asked["block_size"] = asked.pop("page_size")
        name = self._attention.removeprefix("paged|")
        self._used_attention = f"paged|{name}" if older else self._attention
        kernels.use(self._model, self._used_attention)
        batching = ContinuousBatchingConfig(**{key: value for key, value in asked.items() if key in known})
        return self._model.init_continuous_batching(config, batching)

    def _insert_processors(self, ends: Sequence[int]) -> None:
        """Have tokens chosen as the profile asks where transformers cannot by itself."""
        least, sampling = self.generation.min_new_tokens, self.generation.temperature > 0
        if not least and not sampling:
            return
        try:
            from benchmark.node.continuous import logits_processors
        except ImportError:  # transformers 5.17
            if least and not self._fixed_length:
                raise SetupError(
                    f"This transformers cannot keep answers from ending before they have {least} tokens: install the "
                    "one in requirements-node.txt, or set min_new_tokens to 0 or to max_new_tokens."
                ) from None
            return
        # The last comes first: of a greedy query one token is left, and that must not be struck out after it.
        if sampling:
            logits_processors.insert(self._manager, logits_processors.Greedy())
            self._greedily = {logits_processors.GREEDY: True}
        if least:
            logits_processors.insert(self._manager, logits_processors.MinNewTokens(least, ends))
            self._freely = {logits_processors.MIN_NEW_TOKENS: 0}

    def _check_prompt(self, token_ids: list[int]) -> None:
        """Raise RunError for a query that could never be scheduled, or would break the device for all others."""
        text_config = self._model.config.get_text_config()
        total = len(token_ids) + self.generation.max_new_tokens
        if not token_ids:
            raise RunError("The prompt has no tokens.")
        if not 0 <= min(token_ids) <= max(token_ids) < text_config.vocab_size:
            raise RunError(f"The prompt has token ids outside the model's {text_config.vocab_size}.")
        positions = getattr(text_config, "max_position_embeddings", None)
        if positions is not None and total > positions:
            raise RunError(f"The prompt and its answer take {total} tokens; the model has {positions} positions.")
        if total > self._cache_tokens:
            raise RunError(f"The prompt and its answer take {total} tokens; the KV cache holds {self._cache_tokens}.")

    def _details(self, resolved: Any, options: Options, end: list[int]) -> dict[str, JsonValue]:
        import torch

        cache = self._manager.batch_processor.cache
        graphs = resolved.cuda_graph_booleans
        return {
            "attention": self._model.config._attn_implementation,
            "attention_kernels": self._kernels.name if self._attention == kernels.TORCH_FLASH else None,
            "block_sharing": bool(cache.use_prefix_sharing),
            "page_size": options.page_size,
            "num_blocks": resolved.num_blocks,
            "kv_cache_tokens": self._cache_tokens,
            "max_batch_tokens": resolved.max_batch_tokens,
            "max_requests_per_batch": resolved.max_requests_per_batch,
            "max_blocks_per_request": resolved.max_blocks_per_request,
            "max_memory_percent": resolved.max_memory_percent,
            "cuda_graphs": {"varlen": graphs[0], "decode": graphs[1]},
            "async_batching": bool(resolved.use_async_batching),
            "compile_level": options.compile_level,
            "fused": [] if self._fused is None else list(self._fused.names),
            "scheduler": resolved.scheduler_type,
            "safety_margin": self._manager.batch_processor.scheduler.safety_margin,
            "ends": "at max_new_tokens" if self._fixed_length else [int(token) for token in end],
            "seed": self.generation.seed,
            # Made before the measuring window: the cache, and CUDA graphs and compiled code where they are on.
            "warmed_up": bool(self._manager.warmed_up),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "torch_threads": torch.get_num_threads(),
            "memory": None if self._memory is None else dataclasses.asdict(self._memory),
            "options": options.model_dump(mode="json", exclude_none=True),
        }
