"""An engine that is provisioned, as the system under test: installed by its role, started here, ended with the run."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from benchmark.errors import SetupError
from benchmark.node.engines import endpoint
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.prompting import require_room
from benchmark.node.serving.provisioned import HOST, command, free_port, most_tokens, quantization
from benchmark.node.watch.environment import visible_gpus
from benchmark.profiles import Generation
from benchmark.provisioned_engine import Part, ProvisionedEngine, ServerOptions
from benchmark.records import EngineInfo
from benchmark.served import QUANTIZATION
from benchmark.settings import Settings


class Engine(endpoint.Engine):
    """The client of a server that nobody else uses; what it is told are its options and the run's own settings."""

    def __init__(
        self, declared: ProvisionedEngine, settings: Settings, generation: Generation, options: dict[str, Any]
    ) -> None:
        super().__init__(settings, generation, options)
        self.declared, self.name, self.called = declared, declared.name, declared.title

    def load(self) -> EngineInfo:
        """Start the server, on a free port of loopback unless others are served, and wait until it serves the model.

        Raises InputError for options that do not exist and prompts that are too long, SetupError where the environment
        or the model is not there, GPUs are too few, or the server does not start.
        """
        options = self.declared.check_options(self.options)
        # Where the node serves others, the run says where.
        url = next(iter(self.settings.benchmark_endpoint_urls), f"http://{HOST}:{free_port()}")
        start = self.command(url)
        most = most_tokens(self.declared, options, find_snapshot(self.settings))
        require_room(most, self.demands, self.generation.max_new_tokens, "max_model_len is")
        # Whoever looks into the log while it starts, or after it did not, finds what was asked there too.
        print(f"Starting {self.called}: {start}", flush=True)
        self.settings = self.settings.model_copy(
            update={
                "benchmark_endpoint_urls": [url],
                "benchmark_endpoint_start": start,
                "benchmark_endpoint_model": self.settings.benchmark_model,
            }
        )
        return super().load()

    def command(self, url: str = "") -> str:
        """Return the line of the shell that serves at `url`, or computes this node's part of a copy that others answer.

        Raises as `load` does.
        """
        options, part = self.declared.check_options(self.options), None
        self._gpus = self._used(options)
        if group := self.group:
            part = Part(len(group.places), group.rank, group.head.host, group.head.port)
        copies = self._gpus // options.gpus_of_a_copy
        return command(self.declared, self.settings, options, url, max(1, copies), part)

    def _check_options(self) -> None:
        """They were checked when the command was made."""

    def _replicas(self) -> int:
        return self._gpus

    def _details(self) -> dict[str, JsonValue]:
        quantized = quantization(find_snapshot(self.settings))
        return {
            "options": self.declared.check_options(self.options).model_dump(mode="json"),
            **({QUANTIZATION: quantized} if quantized else {}),
        }

    def _used(self, options: ServerOptions) -> int:
        """Return how many GPUs serve: all that are visible, or `benchmark_replicas` of them; 1 on the CPU.

        Of a copy over several nodes: those of all nodes.
        """
        spread, nodes = options.gpus_of_a_copy, len(self.group.places) if self.group else 1
        if self.settings.benchmark_device == "cpu":
            return nodes
        there, asked = len(visible_gpus()[0]), self.settings.benchmark_replicas
        sizes = f"a copy is over {spread}, tensor_parallel_size x pipeline_parallel_size"
        if self.group:
            if spread // nodes > there:
                raise SetupError(
                    f"{self.called} is to serve from {spread // nodes} GPUs of this node ({sizes}, and over {nodes} "
                    f"nodes), and {there} are visible."
                )
            return spread
        wanted = there - there % spread if asked == "auto" else asked
        if wanted > there or wanted < spread or wanted % spread:
            raise SetupError(
                f"{self.called} is to serve from {max(wanted, spread)} GPUs (benchmark_replicas: {asked}; {sizes}), "
                f"and {there} are visible."
            )
        return wanted
