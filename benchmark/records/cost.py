"""The cost of tokens, from the price of a GPU."""

from __future__ import annotations

from pydantic import Field

from benchmark.records.base import Name, Record


class Cost(Record):
    """The cost of output and of input tokens. Each carries the whole price: do not add them."""

    currency: Name
    per_hour: float = Field(description="price of a GPU hour x the GPUs that answered")
    per_million_output_tokens: float | None = Field(None, description="absent: no output token was measured")
    per_million_input_tokens: float | None = Field(None, description="of prompts; absent: no input token was measured")
