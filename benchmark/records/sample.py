"""One query's times, and the metrics of all queries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from benchmark.records.base import Count, Name, Nanoseconds, Record, Text


class Sample(Record):
    """One query. Times are nanoseconds of the node's monotonic clock since the measuring window began."""

    index: Count = Field(description="position in the schedule")
    prompt_id: Name = Field(description="id of the prompt in the dataset")
    scheduled_ns: Nanoseconds | None = Field(
        None, description="when the scenario scheduled the query; absent: LoadGen reports it only at its end"
    )
    issued_ns: Nanoseconds = Field(description="when it was given to the engine")
    first_token_ns: Nanoseconds | None = Field(None, description="when the first output token arrived")
    completed_ns: Nanoseconds | None = Field(None, description="when the last output token arrived; absent: failed")
    first_reported_ns: Nanoseconds | None = Field(None, description="when the first token had been reported to LoadGen")
    reported_ns: Nanoseconds | None = Field(None, description="when the completion was reported to LoadGen")
    input_tokens: Count = Field(0, description="tokens of the prompt, chat template included")
    output_tokens: Count = Field(0, description="the tokens that tokens/s counts: from ids, or from the server's usage")
    pieces: Count | None = Field(
        None, description="in how many pieces, at different times, the output arrived; absent: no stream was read"
    )
    first_piece_tokens: Count | None = Field(
        None, description="output tokens in the first of those pieces, by their ids; absent: no ids"
    )
    usage_tokens: Count | None = Field(
        None, description="output tokens by the server's usage, if these are not `output_tokens`"
    )
    asked_tokens: Count | None = Field(
        None, description="exact number of output tokens requested; absent: as in the profile's generation"
    )
    cached_tokens: Count | None = Field(
        None, description="prompt tokens from the server's prefix cache, by its usage; absent: not reported"
    )
    server: Count | None = Field(None, description="index of the server in the engine's urls; absent: a single server")
    token_ids: tuple[int, ...] = Field(
        (), description="the output's token ids; absent if a server does not report them"
    )
    error: Text | None = Field(None, description="why the query failed")

    @model_validator(mode="after")
    def _in_order(self) -> Sample:
        before = 0
        for moment in (self.scheduled_ns, self.issued_ns, self.first_token_ns, self.completed_ns, self.reported_ns):
            if moment is None:
                continue
            if moment < before:
                raise ValueError("scheduled, issued, first-token and completed times are not in order")
            before = moment
        if self.first_reported_ns is not None and (
            self.first_token_ns is None or self.first_reported_ns < self.first_token_ns
        ):
            raise ValueError("LoadGen was told of the first token before it was there")
        if (self.completed_ns is None) == (self.error is None):
            raise ValueError("a sample has either a completed time or an error")
        if self.error is None and self.output_tokens and self.first_token_ns is None:
            raise ValueError("a sample with output tokens has no first-token time")
        if self.token_ids and len(self.token_ids) != self.output_tokens:
            raise ValueError("a sample counts other output tokens than it has")
        return self


class Distribution(Record):
    """A distribution of times in milliseconds. A percentile in `insufficient` has too few samples."""

    count: Annotated[int, Field(ge=1)]
    mean: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    insufficient: dict[str, int] = Field(description="percentile -> samples needed for it at 99 % confidence")


class QueryCounts(Record):
    """planned = completed + failed + unfinished."""

    planned: Count
    completed: Count
    failed: Count
    unfinished: Count = Field(description="never issued, or in flight when the run ended")


# Largest share of completed answers without token times, for which the times of the others are taken.
MAX_UNSEEN = 0.01
# A stream with more tokens per piece on average is coarse; occasional pieces of two are normal.
TOKENS_PER_PIECE = 2


class AnswerCounts(Record):
    """How many completed answers were not as they should be."""

    one_piece: Count = Field(0, description="several tokens that arrived in one piece: TTFT and TPOT are unknown")
    coarse: Count = Field(0, description="pieces of more than two tokens on average: TPOT is unknown")
    short: Count = Field(0, description="fewer tokens than the profile's min_new_tokens")
    miscounted: Count = Field(0, description="different numbers of tokens in the server's usage and its stream")
    miscounted_tokens: Count = Field(0, description="the sum of these differences")


class Metrics(Record):
    """The metrics of samples.jsonl; docs/metrics.md has every formula. None: undefined, never zero."""

    times_of: Literal["samples", "LoadGen"] = Field(
        "samples", description="source of latency_ms, ttft_ms and tpot_ms: LoadGen if it reports them"
    )
    queries: QueryCounts
    answers: AnswerCounts = AnswerCounts()
    duration_s: float | None = Field(None, description="last completion minus first issue")
    qps: float | None = Field(None, description="completed queries per second of duration_s; LoadGen's own in its runs")
    input_tokens: Count = 0
    output_tokens: Count = Field(0, description="of completed queries")
    tokens_per_s: float | None = Field(None, description="output tokens per second; LoadGen's own in its runs")
    latency_ms: Distribution | None = Field(None, description="completed minus scheduled")
    latency_from_issue_ms: Distribution | None = Field(None, description="completed minus issued")
    ttft_ms: Distribution | None = Field(None, description="first token minus scheduled")
    ttft_from_issue_ms: Distribution | None = Field(None, description="first token minus issued")
    tpot_ms: Distribution | None = Field(None, description="(completed minus first token) / (tokens - 1)")
    issue_delay_ms: Distribution | None = Field(None, description="issued minus scheduled: how far the client lagged")
    first_report_delay_ms: Distribution | None = Field(
        None, description="from the first token until it had been reported to LoadGen"
    )
    report_delay_ms: Distribution | None = Field(
        None, description="from the last token until it was reported to LoadGen"
    )
