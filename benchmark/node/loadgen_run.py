"""One run of LoadGen: its thread, the reports to it, and an end even if it would wait forever."""

from __future__ import annotations

import array
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.errors import RunError
from benchmark.loadgen_log import read_schedule
from benchmark.node.interfaces import Answer, Issuer, Query, Workload, now_ns

# How often the waiting thread checks that the run can continue.
LOOK_S = 0.2
# Type of token ids in the accuracy log, as MLPerf's compliance tests read them: C's 32-bit int.
ID_TYPE = "i"


def _as_logged(token_ids: Iterable[int]) -> array.array[int]:
    """Return the token ids as bytes for LoadGen, which writes them to its accuracy log."""
    return array.array(ID_TYPE, token_ids)


class LoadGenRun:
    """Runs LoadGen in its own thread, so that this one can receive signals and notice failures.

    LoadGen cannot be stopped: a run that cannot continue is abandoned with its thread parked, and the process ends
    without it (`benchmark.cli.entry`). No query may be reported to it after it has ended.
    """

    def __init__(
        self, workload: Workload, issuer: Issuer, settings: Any, directory: Path, prefix: str, audit: str = ""
    ) -> None:
        import mlperf_loadgen

        self._loadgen = mlperf_loadgen
        self._workload = workload
        self._issuer = issuer
        self._settings = settings
        self._directory = directory
        self._prefix = prefix
        self._audit = audit
        self._response_ids: dict[int, int] = {}
        self._prompts: list[int] = []
        self._reported_ns: dict[int, int] = {}
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._abandoned = False

    def run(self) -> None:
        """Return when LoadGen has ended. Raises RunError (EngineBroken) or OSError if it cannot end."""
        threading.Thread(target=self._start_test, name="loadgen", daemon=True).start()
        try:
            while not self._ended.wait(LOOK_S):
                self._issuer.check()
            if self._error is not None:
                raise self._error
        except BaseException:
            self._abandoned = True
            raise

    def scheduled_ns(self) -> dict[int, int]:
        """Return query index -> its time in LoadGen's schedule, by `now_ns`.

        LoadGen's trace gives each query's time from its schedule to the report of its end, and the time of that report
        is known here. Accurate to the microseconds that a report takes.
        """
        trace = self._directory / f"{self._prefix}trace.json"
        return {
            index: self._reported_ns[index] - taken_ns
            for index, (prompt, taken_ns) in read_schedule(trace).items()
            if index in self._reported_ns and self._prompts[index] == prompt
        }

    def first_token(self, query: Query, token_id: int | None) -> None:
        """Report the first token to LoadGen, which takes the time itself."""
        if self._abandoned:
            return
        tokens = _as_logged(() if token_id is None else (token_id,))
        address, length = tokens.buffer_info()
        response = self._loadgen.QuerySampleResponse(
            self._response_ids[query.index], address, length * tokens.itemsize, 1
        )
        self._loadgen.FirstTokenComplete([response])

    def ended(self, query: Query, answer: Answer | None) -> None:
        """Report the end to LoadGen; a failed query ends without a token, so that LoadGen does not wait for it."""
        if self._abandoned:
            return
        token_ids = _as_logged(answer.token_ids if answer else ())
        address, length = token_ids.buffer_info()
        tokens = answer.output_tokens if answer else 0
        response = self._loadgen.QuerySampleResponse(
            self._response_ids.pop(query.index), address, length * token_ids.itemsize, tokens
        )
        self._reported_ns[query.index] = now_ns()
        self._loadgen.QuerySamplesComplete([response])

    def _issue(self, samples: Any) -> None:
        """Receive queries from LoadGen, on its thread. Never raises: LoadGen does not survive an exception."""
        for sample in samples:
            if self._abandoned:
                threading.Event().wait()
            index = len(self._prompts)
            self._prompts.append(sample.index)
            self._response_ids[index] = sample.id
            try:
                self._issuer.issue(self._workload.query(index, sample.index), None, self)
            except BaseException as error:  # raised again in the waiting thread
                self._error = error
                self._ended.set()
                threading.Event().wait()

    def _start_test(self) -> None:
        loadgen = self._loadgen
        count = len(self._workload.prompts)
        try:
            logs = loadgen.LogSettings()
            logs.enable_trace = True  # the only source of LoadGen's schedule times
            logs.log_output.outdir = str(self._directory)
            logs.log_output.prefix = self._prefix
            logs.log_output.copy_summary_to_stdout = False
            sut = loadgen.ConstructSUT(self._issue, lambda: None)
            qsl = loadgen.ConstructQSL(count, count, lambda indexes: None, lambda indexes: None)
            loadgen.StartTestWithLogSettings(sut, qsl, self._settings, logs, self._audit)
            loadgen.DestroyQSL(qsl)
            loadgen.DestroySUT(sut)
        except Exception as error:  # raised again in the waiting thread
            self._error = RunError(f"LoadGen failed: {type(error).__name__}: {error}")
        self._ended.set()
