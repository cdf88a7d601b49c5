"""Nodes whose model, or whose way to it, is not as it should be."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmark.node.hub.cache import RepositoryCache
from benchmark.node.hub.fetch import fetch
from tests.hub_server import Hub, small_model
from tests.integration.faults import full
from tests.integration.faults.fleet import Fleet, send, small_disk
from tests.integration.faults.left_over import processes_of

TINY = "org/tiny-llama"
LARGE = "org/large"
# More than three chunks of a download, of 10 MiB each.
LARGE_BYTES = 33 * 2**20
SHARD = "model-00001-of-00002.safetensors"
WAITS = {"benchmark_engine": "simulated", "benchmark_accuracy": "off"}


def provisioned(fleet: Fleet, name: str, cache: Path) -> Path:
    """Give a node a copy of a cache, times and links as they are; return the snapshot there."""
    home = fleet.place(name) / "huggingface"
    shutil.copytree(cache, home, symlinks=True)
    (snapshot,) = (home / "hub").glob("models--*/snapshots/*")
    return snapshot


def cut(path: Path) -> None:
    """Lose the file's second half."""
    os.truncate(path.resolve(), path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change some bytes in the middle of a file, whose size stays."""
    blob = path.resolve()
    content = bytearray(blob.read_bytes())
    middle = len(content) // 2
    for place in range(middle, middle + 4096):
        content[place] ^= 0x15
    blob.write_bytes(content)


def unseen(harm: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return the harm as a disk does it: the file looks as it did."""

    def quietly(path: Path) -> None:
        stat = path.stat()
        harm(path)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    return quietly


def garble(path: Path) -> None:
    """Make no JSON of it, of the same size."""
    path.resolve().write_bytes(b"\xff" * path.stat().st_size)


def spoilt_models(fleet: Fleet, cache: Path) -> None:
    """Add nodes with a provisioned cache each, in which something is wrong; nobody is to bring it again."""
    harms: dict[str, tuple[str, Callable[[Path], None]]] = {
        "cut-weights": ("model.safetensors", cut),
        "flipped-weights": ("model.safetensors", flip),
        "broken-config": ("config.json", cut),
        "no-tokenizer": ("tokenizer.json", lambda path: path.resolve().unlink()),
        "unseen-config": ("config.json", unseen(garble)),
        "unseen-weights": ("model.safetensors", unseen(flip)),
    }
    for name, (file, harm) in harms.items():
        harm(provisioned(fleet, name, cache) / file)
        fleet.add(name)
    fleet.add("never-provisioned")
    cut(provisioned(fleet, "healed", cache) / "model.safetensors")
    fleet.add("healed", hf_cache_source="hub", **WAITS)


def full_memories(fleet: Fleet, cache: Path) -> None:
    """Add nodes whose GPU's or own memory is full for a real engine."""
    programs = fleet.playbooks.directory / "programs"
    for name, full_by in {
        "gpu-full-at-load": full.gpu_full_at_load,
        "gpu-full-later": full.gpu_full_in_mid_run,
        "node-full": full.node_full_in_mid_run,
    }.items():
        provisioned(fleet, name, cache)
        fleet.add_own(name, full_by(programs / name))


def bad_hubs(fleet: Fleet, stack: ExitStack) -> dict[str, Hub]:
    """Add nodes that download, each from a hub of its own; return these."""
    hubs = {}
    for name in ("cut-often", "cut-always", "hub-500", "hub-429", "hub-damages", "fills-up", "fetch-killed"):
        hub = hubs[name] = stack.enter_context(Hub())
        files = {**small_model(), SHARD: os.urandom(LARGE_BYTES if name.startswith("cut") else 12 * 2**20)}
        model = hub.add(LARGE, files)
        asked = {"benchmark_model": LARGE, "benchmark_model_revision": model.commit, "hf_cache_source": "hub"}
        fleet.add(name, **asked, **WAITS, node_environment={"HF_ENDPOINT": hub.url})
    hubs["cut-often"].cut_after, hubs["cut-often"].cuts = 10_600_000, 3
    hubs["cut-always"].cut_after, hubs["cut-always"].cuts = 2000, 10**6
    hubs["hub-500"].refuse_with, hubs["hub-429"].refuse_with = 500, 429
    hubs["hub-damages"].damaged = {SHARD}
    hubs["fetch-killed"].while_sending = lambda: kill_download(fleet.place("fetch-killed"))
    disk = stack.enter_context(small_disk(fleet.place("fills-up"), "32m"))
    fleet.hosts["fills-up"]["hf_cache_dir"] = str(disk / "huggingface")
    hubs["fills-up"].while_sending = lambda: fill(disk)
    return hubs


def kill_download(place: Path) -> None:
    """End the node's download as the OOM killer would."""
    for pid, command in processes_of(place).items():
        if command.split()[0].endswith("python"):
            send(pid, signal.SIGKILL)


def fill(disk: Path) -> None:
    """Leave nothing of a disk, as somebody else's job may."""
    with (disk / "filler").open("ab", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
        except OSError:
            return


def mended(hubs: dict[str, Hub], disk: Path) -> None:
    """Let all hubs answer as they should, and make room."""
    for hub in hubs.values():
        hub.recover()
        hub.damaged.clear()
        hub.while_sending = lambda: None
    (disk / "filler").unlink()


def provision(hub: Hub, files: dict[str, bytes], cache: Path) -> str:
    """Publish a model and bring it into a cache; return its commit."""
    model = hub.add(TINY, files)
    before = os.environ.get("HF_ENDPOINT")
    os.environ["HF_ENDPOINT"] = hub.url
    try:
        fetch(TINY, model.commit, cache, None)
    finally:
        os.environ.pop("HF_ENDPOINT") if before is None else os.environ.update(HF_ENDPOINT=before)
    return model.commit


def whole(fleet: Fleet, name: str) -> bool:
    """Return whether what lies in the node's cache is a whole snapshot, by its hashes."""
    cache = RepositoryCache(Path(fleet.hosts[name].get("hf_cache_dir", fleet.place(name) / "huggingface")), LARGE)
    manifest = cache.manifest(fleet.hosts[name]["benchmark_model_revision"])
    return manifest is not None and all(cache.sound(file) for file in manifest.unverified().files.values())
