"""What tokens cost, by the price of a GPU."""

from __future__ import annotations

from pydantic import Field

from benchmark.records.base import Name, Record


class Cost(Record):
    """Each of the two carries the whole price of the time: one is not to be added to the other."""

    currency: Name
    per_hour: float = Field(description="price of a GPU's hour x the GPUs that answered")
    per_million_output_tokens: float | None = Field(None, description="absent: no output token was measured")
    per_million_input_tokens: float | None = Field(None, description="of prompts; absent: no input token was measured")
