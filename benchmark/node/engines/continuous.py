"""transformers' continuous batching: many queries in flight on one device, over a paged KV cache."""

from __future__ import annotations

import atexit
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from benchmark.continuous_options import Options
from benchmark.errors import InputError, RunError, Unfit
from benchmark.node import interfaces
from benchmark.node.continuous import attention as kernels
from benchmark.node.continuous import collector, cross_check, graphs
from benchmark.node.continuous.details import describe
from benchmark.node.continuous.memory_plan import Plan, free_bytes, make_plan
from benchmark.node.continuous.router import Flight, Router
from benchmark.node.interfaces import EngineBroken, Listener, Query
from benchmark.node.model.architecture import Look, read_config, require_batching, shared_positions, text_config
from benchmark.node.model.files import check_files
from benchmark.node.model.generation import end_tokens, generation_config
from benchmark.node.model.load import BYTES_PER_PARAMETER, LoadedModel, find_snapshot, has_experts, load_model
from benchmark.node.model.prompting import POSITIONS, check_prompt, encode, require_room, require_vocabulary
from benchmark.node.options import check
from benchmark.node.startup import Stages, process_age_s
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.settings import Settings

if TYPE_CHECKING:
    from benchmark.node.continuous.fused import Fused

# How long `close` waits for the generation thread to end its step, and for the listeners to be called.
CLOSE_S = 10.0
UNPLANNED = (
    "GPU memory: the size of a cached token is not known for this architecture, so there is no plan; transformers "
    "sizes the cache (by num_blocks, max_batch_tokens and max_memory_percent in benchmark_engine_options)."
)
SHARED = "the limit for queries that share one rotary embedding (longrope) in a batch is"
# How many queries the check before a run sends if there are no graphs to cover.
CHECKED_WITHOUT_GRAPHS = 4


class Engine(interfaces.Engine):
    """One replica. Pages are never shared between queries: repeated prompts would look faster than they are.

    With sampling each query uses its own seed: its answer does not depend on what else is in flight.
    """

    replicable = True
    _attention = ""
    _fusing = False
    _fused: Fused | None = None
    _memory: Plan | None = None
    _look: Look | None = None

    def __init__(self, settings: Settings, generation: Generation, options: dict[str, Any]) -> None:
        super().__init__(settings, generation, options)
        self._stages = Stages()

    def load(self) -> EngineInfo:
        """Load the model and start the generation thread; raises as `start` does, mostly before loading."""
        options = self._check()
        snapshot, dtype = find_snapshot(self.settings), self.settings.benchmark_dtype
        parameters = check_files(snapshot)
        with self._stages.stage("imports"):  # most of the time before loading
            config = read_config(snapshot)
            self._require_prompts(options, text_config(config))
            self._look = require_batching(config)
        self._choose(options, config, self.settings.benchmark_device, dtype)
        plan = None
        if self.settings.benchmark_device != "cpu":
            weights = parameters * BYTES_PER_PARAMETER[dtype]
            plan = self._plan(options, self._look, BYTES_PER_PARAMETER[dtype], weights)
            print(plan.sentence() if plan else UNPLANNED, file=sys.stderr, flush=True)
        return self.start(load_model(self.settings, texts=self.demands.needs_template), plan)

    def start(self, loaded: LoadedModel, plan: Plan | None = None) -> EngineInfo:
        """Get ready with a loaded model; without a plan for the GPU's memory, make one.

        Raises InputError for unknown options, SetupError if the cache does not fit or something requested is missing,
        Unfit if the model or this machine does not support continuous batching.
        """
        options = self._check()
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        if self._look is None:
            self._look = require_batching(self._model.config)
        if not self._attention:
            self._choose(options, self._model.config, *self._device_and_dtype())
        if self._model.device.type != "cpu" and plan is None:
            plan = self._plan(options, self._look, self._model.dtype.itemsize, 0)
        self._memory = plan
        # Imported late: `_choose` reports a transformers version that is too old for it.
        from benchmark.node.continuous import manager

        ends = [-1] if self._fixed_length else end_tokens(loaded)
        with manager.errors_for_people():
            with self._stages.stage("cache"):
                used = self._make_manager(options, loaded, ends)
            self._warm_up()
        self._require_graphs(options)
        self._requests = itertools.count()
        self._page_size = options.page_size
        self._shared = shared_positions(text_config(self._model.config))
        self._cache_tokens = self._manager.continuous_batching_config.num_blocks * options.page_size
        # A thread inherits `daemon` from its creator: transformers' own would otherwise keep a process from ending.
        atexit.register(self.close)  # a thread in the middle of a step would abort the process
        starter = threading.Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()
        self._router.start()
        details = describe(
            *(self._manager, options, self.generation, None if self._fixed_length else ends, used, self._fused, plan)
        )
        with self._stages.stage("cross_check"):
            try:
                details["cross_check"] = self._cross_check()
            except BaseException:
                self.close()
                raise
        collector.leave_loaded()
        before: Any = loaded.details.get("startup_s") or {}
        for name, seconds in before.items():
            self._stages.add(name, seconds)
        details["startup_s"] = {**self._stages.seconds, "since_process_start": process_age_s()}
        return EngineInfo(name="continuous", details=loaded.details | details)

    def _make_manager(self, options: Options, loaded: LoadedModel, ends: list[int]) -> str | None:
        """Make transformers' manager with its cache and insert our parts; return the kernels of `paged_flash`."""
        from benchmark.node.continuous import manager

        config = generation_config(loaded, self.generation, self.generation.temperature, eos_token_id=ends)
        self._manager, self._used_attention = manager.make_manager(
            self._model, config, options, self._attention, self._memory, self.generation.seed
        )
        self._words = manager.insert_processors(
            self._manager, self.generation, end_tokens(loaded), self.demands.lengths
        )
        self._router = Router(self._manager)
        self._manager.output_router = self._router
        if self._fusing:
            from benchmark.node.continuous import fused

            self._fused = fused.of(self._model)
            self._fused.on()
        if self._attention != kernels.PAGED_FLASH:
            return None
        from benchmark.node.continuous import flash_kernels, step_runner

        used = flash_kernels.choose(*self._device_and_dtype(), kernels.heads(text_config(self._model.config)))
        recorded = graphs.wanted(options, self._model.device.type)
        step_runner.prepare(self._manager, used, options.max_blocks_per_request, recorded)
        return used.name

    def _warm_up(self) -> None:
        """Run a step of every kind, which captures CUDA graphs if they are on."""
        from benchmark.node.continuous import manager

        positions = getattr(text_config(self._model.config), "max_position_embeddings", None)
        with self._stages.stage("warm_up"), collector.still():
            manager.warm_up(self._manager, positions)
        if captured := getattr(self._manager.batch_processor.model_runner, "capture_s", 0.0):
            self._stages.add("warm_up", -captured)
            self._stages.add("capture", captured)

    def _require_graphs(self, options: Options) -> None:
        """Raise Unfit if CUDA graphs are required and the warm-up has shown that they are impossible."""
        failed = getattr(self._manager.batch_processor.model_runner, "failed", None)
        if options.require_cuda_graph and failed and not any(self._manager.continuous_batching_config.use_cuda_graph):
            raise Unfit(f"Continuous batching cannot run this model's steps as CUDA graphs here: {failed}.")

    def submit(self, query: Query, listener: Listener) -> None:
        """Hand the query to the generation thread and return.

        Raises EngineBroken if that thread has ended, RunError for a query that could never be answered.
        """
        if self._router.broken is not None:
            raise EngineBroken(self._router.broken)
        token_ids = encode(self._tokenizer, query.prompt)
        exactly, (_, most) = query.prompt.output_tokens, query.bounds(self.generation)
        check_prompt(token_ids, self._model.config.get_text_config(), most, self._cache_tokens)
        if self._shared is not None and len(token_ids) + most > self._shared:
            raise RunError(f"The prompt and its answer take {len(token_ids) + most} tokens; {SHARED} {self._shared}.")
        request_id = str(next(self._requests))
        self._router.add(request_id, Flight(query, listener, len(token_ids)))
        said = self._said(seed=self.generation.seed << 32 | query.seed & 0xFFFFFFFF, greedy=query.greedy)
        if exactly is not None:  # then nothing ends the answer earlier
            said |= {"max_new_tokens": exactly, "eos_token_id": -1, **self._said(min_new_tokens=exactly)}
        taken = self._manager.add_request(token_ids, request_id=request_id, streaming=True, **said)
        if taken is None and self._router.withdraw(request_id):
            fatal = self._manager.background_thread_status.fatal_error
            raise EngineBroken(f"The engine has stopped: {fatal or 'it was closed'}.")

    def cancel(self, query: Query) -> None:
        """Free the pages that the query holds."""
        if (request_id := self._router.withdraw_query(query)) is not None:
            self._manager.cancel_request(request_id)

    def close(self) -> None:
        """Stop, within about twenty seconds; queries in flight fail."""
        manager = getattr(self, "_manager", None)
        if manager is None:
            return
        del self._manager
        atexit.unregister(self.close)
        try:
            if manager.is_running():
                manager.stop(block=True, timeout=CLOSE_S, hard_stop=True)
        finally:  # on a GPU that has failed, stopping fails too
            self._router.close(CLOSE_S)
            if self._fused is not None:
                self._fused.off()
            collector.look_again()

    def _cross_check(self) -> JsonValue:
        """Raise SetupError if the engine's greedy answers differ from the plain model's."""
        config = self._manager.continuous_batching_config
        captured = any(config.cuda_graph_booleans)
        requests = config.max_requests_per_batch if captured else CHECKED_WITHOUT_GRAPHS
        requests = max(1, min(requests, self._cache_tokens // 2 // max(64, self._page_size)))
        late = min(cross_check.LATE_TOKENS, self._cache_tokens // 4, (self._shared or self._cache_tokens) // 2)
        asked = cross_check.probes(requests, self._model.config.get_text_config().vocab_size, late)
        # Greedy, like the plain model's choice, even if the run samples.
        answers = cross_check.ask(self._manager, self._router, asked, self._said(greedy=True, min_new_tokens=0))
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
        return cross_check.judge(short, self._device_and_dtype()[1], has_experts(self._model.config.to_dict()))

    def _check(self) -> Options:
        options = check(Options, self.options, "engine_options of the continuous engine")
        if self.settings.benchmark_device == "cpu" and (options.use_cuda_graph or options.use_async_batching):
            raise InputError("engine_options: use_cuda_graph and use_async_batching need a GPU; this is the CPU.")
        return options

    @property
    def _fixed_length(self) -> bool:
        return self.generation.min_new_tokens == self.generation.max_new_tokens

    def _choose(self, options: Options, config: Any, device: str, dtype: str) -> None:
        """Check which of the requested options this machine supports."""
        try:
            from benchmark.node.continuous import logits_processors  # noqa: F401 # only tests availability
        except ImportError as error:
            raise Unfit(
                "This version of transformers cannot choose tokens for each query separately, as continuous batching "
                f"does here ({error}): install the one in requirements-node.txt."
            ) from None
        with self._stages.stage("attention"):
            self._attention = kernels.choose(options, text_config(config), device, dtype, self._needs)
        from benchmark.node.continuous import fused

        self._fusing = fused.wanted(options.fuse, device, dtype)

    def _said(self, **words: JsonValue) -> dict[str, JsonValue]:
        """Return the per-query arguments that this run supports: without sampling, for example, there are none."""
        return {word: value for word, value in words.items() if word in self._words}

    @property
    def _needs(self) -> frozenset[str]:
        return self._look.needs if self._look is not None else frozenset()

    def _plan(self, options: Options, look: Look, bytes_per_value: int, weights: int) -> Plan | None:
        if look.sizes is None:
            return None
        pages, longest = options.num_blocks, max(1, self.demands.longest)
        needed = self.generation.max_new_tokens + longest if pages is None else pages * options.page_size
        chosen = options.max_batch_tokens, options.max_requests_per_batch, options.max_memory_percent
        recorded = graphs.wanted(options, "cuda") if self._attention == kernels.PAGED_FLASH else 0
        free = free_bytes()
        return make_plan(look.sizes, bytes_per_value, free, weights, needed, options.page_size, *chosen, recorded)

    def _device_and_dtype(self) -> tuple[str, str]:
        return self._model.device.type, str(self._model.dtype).removeprefix("torch.")

    def _require_prompts(self, options: Options, config: Any) -> None:
        """Raise InputError if it is known that the dataset's queries could never be answered."""
        require_vocabulary(config, self.demands)
        most, pages = self.generation.max_new_tokens, options.num_blocks
        require_room(getattr(config, "max_position_embeddings", None), self.demands, most, POSITIONS)
        require_room(shared_positions(config), self.demands, most, SHARED)
        held = None if pages is None else pages * options.page_size
        require_room(held, self.demands, most, "the limit of num_blocks and page_size is")
