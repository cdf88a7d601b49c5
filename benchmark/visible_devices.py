"""How CUDA interprets CUDA_VISIBLE_DEVICES: which entries it uses, and why it ignores the others.

CUDA says nothing of what it leaves out. Its rules (CUDA C++ programming guide, and what driver 580 did on two H200s,
which the tests hold): entries are parted by commas and are all numbers, or all UUIDs of one kind, each as short as is
still unique; of a number only the leading digits are read; the list ends before the first entry that is not a device;
one that comes twice before that leaves none at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.words import plural

NAME = "CUDA_VISIBLE_DEVICES"
NUMBER = re.compile(r"\s*([+-]?[0-9]+)")
PREFIXES = ("GPU-", "MIG-")


@dataclass(frozen=True)
class Visible:
    """`entries`: the devices that CUDA uses, each in a form for a process of its own."""

    entries: tuple[str, ...]
    left_out: str | None = None
    """A sentence on the entry that ends or empties the list, and why; None: all devices are used."""

    @property
    def slices(self) -> bool:
        """Whether the devices are slices of GPUs in MIG mode."""
        return any(entry.startswith("MIG-") for entry in self.entries)

    def chooses(self, index: int | str, uuid: str) -> bool:
        """Return whether the GPU with that number and UUID, as the driver reports them, is among the devices."""
        return str(index) in self.entries or (bool(uuid) and uuid in self.entries)


def read(value: str, count: int | None = None, uuids: Sequence[str] = ()) -> Visible:
    """Return how CUDA interprets `value`.

    `count` is how many GPUs the machine has and `uuids` are theirs and their MIG slices', as the driver writes them
    (GPU-..., MIG-...); where they are not known, an entry that looks like a device is taken for one.
    """
    written = value.split(",")
    prefix = next((prefix for prefix in PREFIXES if value.startswith(prefix)), None)
    taken: list[str] = []
    for position, entry in enumerate(written):
        device, reason = _number(entry, count) if prefix is None else _uuid(entry, prefix, uuids)
        if device is None:
            return Visible(tuple(taken), _ends(value, written, position, reason))
        if device in taken:
            return Visible(
                (), f"{NAME} is {value!r}: {entry.strip()!r} occurs twice, and CUDA then sees no GPU at all."
            )
        taken.append(device)
        if prefix is None and reason:
            rest = _ends(value, written, position, reason)
            following = read(",".join([*written[:position], device, *written[position + 1 :]]), count, uuids)
            return Visible(following.entries, rest)
    return Visible(tuple(taken))


def _number(entry: str, count: int | None) -> tuple[str | None, str]:
    found = NUMBER.match(entry)
    if found is None:
        return None, "is not a number" if entry.strip() else "is empty"
    number = int(found[1])
    if number < 0:
        return None, "is negative"
    if count is not None and number >= count:
        return None, f"is beyond the machine's {plural(count, 'GPU')}, numbered from 0"
    rest = entry[found.end() :].strip()
    return str(number), f"is read as {number} alone: entries are separated by commas" if rest else ""


def _uuid(entry: str, prefix: str, uuids: Sequence[str]) -> tuple[str | None, str]:
    if not entry.startswith(prefix):
        return None, f"does not begin with {prefix} as the first does" if entry.strip() else "is empty"
    name = entry.rstrip()
    known = [uuid for uuid in uuids if uuid.startswith(prefix)]
    # The driver no longer writes the older form of a slice, MIG-GPU-<uuid>/<instance>/<instance>.
    if not known or "/" in name:
        return name, ""
    # Text after a complete UUID is ignored.
    matching = [uuid for uuid in known if uuid.lower().startswith(name.lower()[: len(uuid)])]
    if len(matching) == 1:
        return matching[0], ""
    return None, f"is the beginning of {len(matching)} UUIDs" if matching else "is not a device of this machine"


def _ends(value: str, written: Sequence[str], position: int, reason: str) -> str | None:
    """Return the sentence, or None for a mere comma at the end."""
    entry = written[position].strip()
    if not entry and position and not any(one.strip() for one in written[position:]):
        return None
    shown = repr(entry) if entry else f"entry {position + 1}"
    after = ", ".join(one.strip() for one in written[position + 1 :] if one.strip())
    hidden = f"; the entries after it ({after}) are hidden too" if after and "alone" not in reason else ""
    return f"{NAME} is {value!r}: {shown} {reason}, and so CUDA ignores the rest{hidden}."
