"""Which kernel does what, and what is said of a step."""

from __future__ import annotations

import pytest

from benchmarks.split import OTHER, Split, kind


@pytest.mark.parametrize(
    ("kernel", "does"),
    [
        ("nvjet_sm90_tst_320x128_64x3_1x2_h_bz_coopB_TNT", "multiplying"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, cutlass::bfloat16_t>>", "attention"),
        ("_answer", "attention"),
        ("_read", "attention"),
        ("multiply_gated", "multiplying"),
        ("write_rows", "cache"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>", "sampling"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("triton_red_fused__unsafe_view_mm_mul_silu_t_view_1", "multiplying"),
        ("triton_poi_fused__unsafe_view_mul_silu_0", OTHER),
        ("triton_red_fused__to_copy_mean_mul_pow_rsqrt_0", OTHER),
    ],
)
def test_a_kernel_is_known_by_its_name(kernel: str, does: str) -> None:
    assert kind(kernel) == does


def test_a_step_is_reported_in_milliseconds() -> None:
    split = Split(wall_s=0.4, steps=10, cpu_s={"scheduling": 0.05}, gpu_s={"attention": 0.1}, busy_s=0.3)
    assert split.sentence() == (
        "10 steps of 40.0 ms; ms a step on the CPU: scheduling 5.00; on the GPU: attention 10.00; it was busy 75% of "
        "the time"
    )
