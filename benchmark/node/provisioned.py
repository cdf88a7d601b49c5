"""A provisioned engine as the system under test: installed by its role, started here, ended with the run."""

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
    """The client of the run's own server, which is configured by its options and the run's settings."""

    def __init__(
        self, declared: ProvisionedEngine, settings: Settings, generation: Generation, options: dict[str, Any]
    ) -> None:
        super().__init__(settings, generation, options)
        self.declared, self.name, self.called = declared, declared.name, declared.title

    def load(self) -> EngineInfo:
        """Start the server, on a free loopback port unless it serves others, and wait until it serves the model.

        Raises InputError for unknown options and for prompts that are too long, SetupError if the environment or the
        model is missing, there are too few GPUs, or the server does not start.
        """
        options = self.declared.check_options(self.options)
        # If the node serves others, the run sets the address.
        url = next(iter(self.settings.benchmark_endpoint_urls), f"http://{HOST}:{free_port()}")
        start = self.command(url)
        most = most_tokens(self.declared, options, find_snapshot(self.settings))
        require_room(most, self.demands, self.generation.max_new_tokens, "max_model_len is")
        # Also in the log, for users who read it while the server starts, or after it has failed.
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
        """Return the shell command that serves at `url`, or computes this node's part of another node's copy.

        Raises as `load` does.
        """
        options, part = self.declared.check_options(self.options), None
        self._gpus = self._used(options)
        if group := self.group:
            part = Part(len(group.places), group.rank, group.head.host, group.head.port)
        copies = self._gpus // options.gpus_of_a_copy
        return command(self.declared, self.settings, options, url, max(1, copies), part)

    def _check_options(self) -> None:
        """Do nothing: they were checked when the command was made."""

    def _replicas(self) -> int:
        return self._gpus

    def _details(self) -> dict[str, JsonValue]:
        quantized = quantization(find_snapshot(self.settings))
        return {
            "options": self.declared.check_options(self.options).model_dump(mode="json"),
            **({QUANTIZATION: quantized} if quantized else {}),
        }

    def _used(self, options: ServerOptions) -> int:
        """Return the number of GPUs that serve: all visible ones, or `benchmark_replicas` of them; 1 on the CPU.

        For a copy over several nodes: those of all nodes.
        """
        spread, nodes = options.gpus_of_a_copy, len(self.group.places) if self.group else 1
        if self.settings.benchmark_device == "cpu":
            return nodes
        there, asked = len(visible_gpus()[0]), self.settings.benchmark_replicas
        sizes = f"a copy uses {spread}, tensor_parallel_size x pipeline_parallel_size"
        if self.group:
            if spread // nodes > there:
                raise SetupError(
                    f"{self.called} needs {spread // nodes} GPUs of this node ({sizes}, over {nodes} nodes), but "
                    f"{there} are visible."
                )
            return spread
        wanted = there - there % spread if asked == "auto" else asked
        if wanted > there or wanted < spread or wanted % spread:
            raise SetupError(
                f"{self.called} needs {max(wanted, spread)} GPUs (benchmark_replicas: {asked}; {sizes}), but {there} "
                "are visible."
            )
        return wanted
