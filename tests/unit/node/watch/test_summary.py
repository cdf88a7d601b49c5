from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import metrics
from benchmark.columns import Columns
from benchmark.node.watch.summary import GpuReport, SamplerReport, energy_of, idle_w, joules, sum_up
from benchmark.records import GpuTick, Tick
from tests.unit.building import closed_loop

S = 1_000_000_000


def tick(t_s: float, **gpu: float | int | None) -> Tick:
    return Tick.model_validate({"t_ns": int(t_s * S), "cpu_percent": 10, "gpus": [{"index": 0, **gpu}]})


def test_means_are_over_time() -> None:
    # Busy for the first second of ten, told by ten ticks; then two ticks for nine seconds.
    ticks = [tick(n / 10, power_w=400.0) for n in range(11)] + [tick(9, power_w=100.0), tick(10, power_w=100.0)]
    reported = sum_up(ticks, 10 * S, SamplerReport(cpu_s=0.05, span_s=10, notes=("one", "two")))
    assert reported is not None
    (gpu,) = reported.gpus
    # The tick at 1 s stands for the time until the middle to the next one.
    assert gpu.power_w == pytest.approx((400 * 5 + 100 * 5) / 10)
    assert gpu.power_w_max == 400
    assert reported.interval_ms == pytest.approx(10_000 / 12)
    assert reported.cost_percent == pytest.approx(0.5)
    assert reported.note == "one; two"


def test_clocks_are_of_a_busy_gpu_and_idleness_is_no_throttling() -> None:
    ticks = [
        tick(0, utilisation_percent=0, sm_clock_mhz=210, throttle_reasons=0x1),
        tick(1, utilisation_percent=90, sm_clock_mhz=1400, throttle_reasons=0x42),
        tick(2, utilisation_percent=90, sm_clock_mhz=1200, throttle_reasons=0x4),
        tick(3, utilisation_percent=0, sm_clock_mhz=210, throttle_reasons=0x101),
    ]
    reported = sum_up(ticks, 3 * S, SamplerReport(gpus=(GpuReport(index=0, xid=(79,), pcie_width=8, ecc_corrected=2),)))
    assert reported is not None
    (gpu,) = reported.gpus
    assert (gpu.sm_clock_mhz, gpu.sm_clock_mhz_min) == (1300, 1200)
    assert gpu.throttled == {"hw_thermal_slowdown": pytest.approx(1 / 3), "sw_power_cap": pytest.approx(1 / 3)}
    assert (gpu.xid, gpu.pcie_width, gpu.ecc_corrected) == ((79,), 8, 2)


def test_what_lies_beyond_the_window_does_not_count() -> None:
    ticks = [tick(-1, power_w=999.0), tick(0, power_w=100.0), tick(1, power_w=100.0), tick(2.1, power_w=999.0)]
    reported = sum_up(ticks, 2 * S, SamplerReport())
    assert reported is not None
    assert (reported.ticks, reported.gpus[0].power_w, reported.gpus[0].power_w_max) == (2, 100, 100)


def test_the_energy_is_between_the_windows_ends() -> None:
    # 50 W until the window, 300 W in it.
    ticks = [tick(-2, energy_mj=1_000_000), tick(0.1, energy_mj=1_130_000), tick(10.2, energy_mj=4_160_000)]
    measured = metrics.compute(Columns.of(closed_loop([1000.0] * 8)), 8)
    found = energy_of(ticks, 10 * S, measured)
    assert found is not None
    at_start = 1_000_000 + 130_000 * 2 / 2.1
    at_end = 1_130_000 + 3_030_000 * 9.9 / 10.1
    assert found.joules == pytest.approx((at_end - at_start) / 1000)
    assert found.idle_w == pytest.approx(130 / 2.1)
    assert found.tokens_per_joule == pytest.approx(8 * 64 / found.joules)
    assert found.joules_per_query == pytest.approx(found.joules / 8)


def test_without_queries_energy_per_query_is_undefined() -> None:
    found = energy_of([tick(-1, energy_mj=0), tick(2, energy_mj=100)], S, metrics.compute(Columns.of(()), 3))
    assert found is not None
    assert (found.tokens_per_joule, found.joules_per_query) == (None, None)


@pytest.mark.parametrize(
    "readings",
    [
        [],
        [(0, 5)],
        [(1, 5), (9, 9)],  # none before the window
        [(-1, 5), (9, 9)],  # none after it: the watching ended early
        [(-1, 9_000), (11, 5_000)],  # the driver was loaded anew
    ],
)
def test_energy_that_cannot_be_told_is_absent(readings: list[tuple[int, int]]) -> None:
    assert energy_of([tick(t, energy_mj=mj) for t, mj in readings], 10 * S, None) is None


def test_a_gpu_without_a_counter_leaves_the_node_without_energy() -> None:
    def two(t_s: int, mj: int) -> Tick:
        return Tick(t_ns=t_s * S, gpus=(GpuTick(index=0, energy_mj=mj), GpuTick(index=1, power_w=100)))

    ticks = [two(-1, 0), two(11, 1000)]
    assert joules(ticks, 0, 0, 10 * S) == pytest.approx(10 / 12)
    assert energy_of(ticks, 10 * S, None) is None


def test_over_a_short_time_the_idle_power_is_as_read() -> None:
    ticks = [tick(-0.2, energy_mj=0, power_w=50.0), tick(-0.1, power_w=70.0), tick(0, energy_mj=5, power_w=300.0)]
    assert idle_w(ticks, 0) == 60
    assert idle_w([tick(0, power_w=300.0)], 0) is None


@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**6)), min_size=3, max_size=30), st.floats(0.05, 0.95)
)
def test_the_parts_of_a_window_have_the_energy_of_the_whole(steps: list[tuple[int, int]], share: float) -> None:
    at_ns = energy = 0
    ticks = []
    for gap_ns, used in steps:
        at_ns, energy = at_ns + gap_ns, energy + used
        ticks.append(Tick(t_ns=at_ns, gpus=(GpuTick(index=0, energy_mj=energy),)))
    first, last = ticks[0].t_ns, ticks[-1].t_ns
    middle = first + int((last - first) * share)
    parts = joules(ticks, 0, first, middle), joules(ticks, 0, middle, last)
    whole = joules(ticks, 0, first, last)
    assert None not in (*parts, whole)
    assert (parts[0] or 0) + (parts[1] or 0) == pytest.approx(whole or 0, abs=1e-6)
    assert all((part or 0) >= 0 for part in parts)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1000)), min_size=2, max_size=30))
def test_a_mean_lies_between_least_and_most(steps: list[tuple[int, float]]) -> None:
    at_ns, ticks = 0, []
    for gap_ns, power in steps:
        at_ns += gap_ns
        ticks.append(Tick(t_ns=at_ns, gpus=(GpuTick(index=0, power_w=power),)))
    reported = sum_up(ticks, at_ns, SamplerReport())
    assert reported is not None
    powers = [power for _, power in steps]
    mean = reported.gpus[0].power_w
    assert mean is not None
    assert min(powers) - 1e-6 <= mean <= max(powers) + 1e-6
