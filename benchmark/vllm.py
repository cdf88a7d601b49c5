"""What the engine `vllm` can be asked: its options, and which settings do not go with it.

Both halves read it: the controller refuses what cannot work before a node is touched, the node makes the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from benchmark.errors import InputError

if TYPE_CHECKING:  # the settings need this module
    from benchmark.settings import Settings

ENGINE = "vllm"
# The lock of vLLM's build for CUDA, and what that build takes.
LOCK = "requirements-vllm.txt"
OLDEST_PYTHON, BELOW_PYTHON = (3, 11), (3, 15)
MACHINE, GLIBC = "x86_64", (2, 31)
# Where the server is and what it is called, the run decides: it would not find it elsewhere.
OURS = ("--host", "--port", "--uds", "--model", "--served-model-name", "--api-key", "--headless", "--config")


class VllmOptions(BaseModel):
    """`benchmark_engine_options` of the engine `vllm`; what is absent is left to vLLM, unless it says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_model_len: int | None = Field(
        None, ge=1, description="tokens of prompt and answer; absent: 8192, or what the model takes if that is less"
    )
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="share of each GPU's memory that vLLM takes; on the CPU, of the node's"
    )
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that one copy of the model is spread over")
    max_num_seqs: int | None = Field(None, ge=1, description="queries in a step")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="tokens in a step")
    arguments: list[str] = Field([], description="further words of the command line, such as --kv-cache-dtype=fp8")

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, words: list[str]) -> list[str]:
        for word in words:
            if (name := word.partition("=")[0].replace("_", "-")) in OURS:
                raise ValueError(f"{name} is what the run decides")
        return words


def check_vllm_options(given: dict[str, Any]) -> VllmOptions:
    """Return `given` as options. Raises InputError, one sentence, for the first fault."""
    try:
        return VllmOptions.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        reported = str(fault["msg"]).removeprefix("Value error, ")
        raise InputError(
            f"The engine vllm: {'.'.join(map(str, fault['loc']))}: {reported}; its options are "
            f"{', '.join(VllmOptions.model_fields)}."
        ) from None


def vllm_problems(settings: Settings, given: dict[str, Any], prefix_caching: bool = False) -> list[str]:
    """Return why the engine `vllm` cannot be run with these settings and options, a sentence each.

    `prefix_caching`: whether the profile wants what was computed before to be used again.
    """
    found = []
    if settings.benchmark_endpoint_start or settings.benchmark_endpoint_urls:
        found.append(
            "The engine vllm starts a server of its own: leave benchmark_endpoint_urls and benchmark_endpoint_start "
            "empty, or take the engine endpoint."
        )
    if settings.benchmark_device == "cpu" and settings.vllm_requirements == LOCK:
        found.append(
            f"benchmark_device is cpu, and {LOCK} locks vLLM's build for CUDA: set vllm_requirements to a file that "
            "pins its build for the CPU."
        )
    if settings.python_env_wheelhouse and not settings.vllm_wheelhouse:
        found.append(
            "python_env_wheelhouse is set, so no node asks an index: vLLM needs a wheelhouse too (make wheelhouse "
            f"WHEELHOUSE=wheelhouse-vllm REQUIREMENTS={settings.vllm_requirements}, then vllm_wheelhouse)."
        )
    try:
        options = check_vllm_options(given)
    except InputError as error:
        return [*found, str(error)]
    spread = options.tensor_parallel_size
    if not prefix_caching and (caching := [word for word in options.arguments if _switches_caching_on(word)]):
        found.append(
            f"The engine vllm: arguments: {caching[0]} has repeated prompts answered without computing them: leave it "
            "out, or take a profile with prefix_caching: true."
        )
    gpus = settings.benchmark_replicas
    if isinstance(gpus, int) and gpus % spread:
        found.append(
            f"benchmark_replicas is {gpus} and tensor_parallel_size is {spread}: with the engine vllm the former is "
            "the GPUs that are used, a multiple of the latter."
        )
    return found


def _switches_caching_on(word: str) -> bool:
    # Also where it is cut short: that depends on the version.
    name = word.partition("=")[0].replace("_", "-")
    return name.startswith("--enable-pref") and "--enable-prefix-caching".startswith(name)
