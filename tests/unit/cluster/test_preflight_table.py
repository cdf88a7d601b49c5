"""What preflight shows of nodes that are well."""

from __future__ import annotations

from benchmark.cluster.preflight import Probe
from benchmark.cluster.preflight_table import Found, found, table

A30 = "0, 00000000:17:00.0, NVIDIA A30, 24576, 550.54.15, None"
PROBE = {
    "python": "3.11.2",
    "env_disk": "/dev/sda1 800000000",
    "cache_disk": "/dev/sdb1 2000000000",
}


def probe(*gpus: str) -> Probe:
    lines = [f"{key}\t{value}\n" for key, value in PROBE.items()]
    return Probe.parse("".join([*lines, *(f"gpu\t{gpu}\n" for gpu in gpus), "gpu_status\t0\n"]))


def test_each_node_has_a_row() -> None:
    second = A30.replace("0, 00000000:17", "1, 00000000:65")
    nodes = {
        "jw10": found(probe(A30), "cuda", 0.4),
        "jw2": found(probe(A30, second), "cuda", -7.2),
        "cpu": found(Probe.parse(""), "cpu", None),
    }
    assert [" ".join(line.split()) for line in table(nodes)] == [
        "Node GPUs Driver Python Free for the environment Free for the model Clock",
        "cpu not used - ? ? ? ?",
        "jw2 2 x NVIDIA A30, 24576 MiB 550.54.15 3.11.2 819 GB 2,048 GB -7 s",
        "jw10 1 x NVIDIA A30, 24576 MiB 550.54.15 3.11.2 819 GB 2,048 GB same",
    ]


def test_memory_without_a_size_is_not_shown() -> None:
    shown = found(probe("0, 0000000F:01:00.0, NVIDIA GB10, [N/A], 580.95, GPU-1, None"), "cuda", None)
    assert shown.gpus == "1 x NVIDIA GB10"


def test_what_old_drivers_do_not_tell_is_said_once() -> None:
    old, new = ("gpu_recovery_action", "mig.mode.current"), ()
    nodes = {f"n{n}": Found("8 x A100", "470", "3.11.2", 100.0, None, 0.0, old if n else new) for n in range(3)}
    *_, last, said = table(nodes)
    assert last.startswith("n2 ")
    assert said == f"Not checked on n1, n2, since nvidia-smi there does not know it: {', '.join(old)}."


def test_many_nodes_that_are_alike_share_a_row() -> None:
    nodes = {f"n{n}": Found("8 x H100", "550", "3.11.2", 100.0 + n, None, 0.0) for n in range(199)}
    nodes["odd"] = Found("7 x H100", "550", "3.11.2", 5.0, None, 90.0)
    _, alike, odd = table(nodes)
    assert alike.startswith("199: n0, n1, n2")
    assert "from 100 GB" in alike
    assert odd.split() == ["odd", "7", "x", "H100", "550", "3.11.2", "5", "GB", "?", "+90", "s"]
