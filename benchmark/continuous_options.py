"""Options of continuous batching in a profile. The controller uses them too, to refuse invalid profiles."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Transformers' own, and `paged_flash`: see `node/continuous/attention.py`.
Choice = Literal["auto", "sdpa", "paged|eager", "paged_flash", "flash_attention_2", "flash_attention_3"]


class Options(BaseModel):
    """The profile's `engine_options`. None: automatic; the result has the value that was chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    attention: Choice = Field("auto", description="auto: the fastest one available")
    page_size: int = Field(256, ge=4, description="tokens in a page of the cache")
    num_blocks: int | None = Field(None, ge=1, description="pages of the cache")
    max_batch_tokens: int | None = Field(None, ge=1, description="most tokens in one step of the model")
    max_memory_percent: float | None = Field(None, gt=0, le=1, description="share of the free memory for the cache")
    max_requests_per_batch: int | None = Field(None, ge=1, description="most queries in one step")
    max_blocks_per_request: int | None = Field(
        None,
        ge=0,
        description="decode steps read requests of up to this many pages through a page table; 0: no page tables",
    )
    use_cuda_graph: bool | None = Field(
        None, description="use CUDA graphs; automatic: if all can be captured before measuring"
    )
    require_cuda_graph: bool = Field(
        False, description="on a GPU, refuse a model or setup whose steps cannot be CUDA graphs"
    )
    graph_tokens: int | None = Field(
        None,
        ge=0,
        description="for paged_flash: steps with prompts are CUDA graphs too, up to this many tokens; 0: none",
    )
    use_async_batching: bool | None = Field(None, description="prepare a step while the previous one computes")
    q_padding_interval_size: int = Field(
        0, ge=0, description="with CUDA graphs: query tokens are padded to a multiple of it"
    )
    kv_padding_interval_size: int = Field(
        0, ge=0, description="with CUDA graphs: cached tokens are padded to a multiple of it"
    )
    fuse: bool | None = Field(
        None,
        description="run the small operations of each layer with our own kernels, not torch's; automatic: on a GPU",
    )
    scheduler: Literal["fifo", "prefill_first"] = Field("fifo", description="which queries a step takes first")
    safety_margin: float | None = Field(None, ge=0, le=1, description="share of free pages not given to new queries")
