"""The minimum that probes must reach (`benchmark_probe_floors`): valid floors, and whether they are reached."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from benchmark.faults import did_you_mean
from benchmark.probed import PAIR, NodeFigure, Place, figures, words_of
from benchmark.profiles import Profile
from benchmark.records import Check, HardwareProbes
from benchmark.settings import Settings
from benchmark.words import shown

# The variable in a probe's module with the names of its rates, those between GPUs without the pair.
RATES = "RATES"
_PROBES = Path(__file__).parent / "node" / "probes"


@cache
def rates() -> tuple[str, ...]:
    """Return the names that a floor may have, from the probes' modules.

    The modules are parsed, not imported: the controller has no torch.
    """
    return tuple(name for path in sorted(_PROBES.glob("[!_]*.py")) for name in _rates_of(path))


def floor_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield a sentence for each floor that no run with these settings could be checked against."""
    floors = settings.benchmark_probe_floors
    for name in floors:
        pair = PAIR.fullmatch(name)
        if (pair[1] if pair else name) not in rates():
            yield (
                f"benchmark_probe_floors: {name!r} is not a rate that a probe measures{did_you_mean(name, rates())} "
                f"Rates: {', '.join(rates())}."
            )
    if floors and settings.benchmark_probes == "off":
        yield (
            "benchmark_probes is off, but only probes can show whether benchmark_probe_floors are reached: set it to "
            "on, or leave the floors out."
        )


def floor_checks(probes: HardwareProbes | None, floors: Mapping[str, float]) -> Iterator[tuple[Check, str]]:
    """Yield a check of each floor in each place, and why it failed (too low, or not measured); empty if it passed."""
    found = figures(probes)
    for name, floor in floors.items():
        figure, places = _measured(found, name)
        for place in places:
            where = f"{place.words}: {words_of(place.name)}" if place.words else words_of(place.name)
            yield _held(where, place.value, floor, figure)
        for where in _missing(probes, places):
            said = f"{where + ': there' if where else 'There'} is no figure for {words_of(name)}"
            check = _check(f"{where}: {words_of(name)}" if where else words_of(name), None, floor)
            yield check, f"{said}, and benchmark_probe_floors requires {shown(floor)}."


def _measured(found: Mapping[str, NodeFigure], name: str) -> tuple[NodeFigure | None, list[Place]]:
    """Return a floor's figure, and its places: all of them, or the one pair that the floor names."""
    if name in found:
        return found[name], list(found[name].places)
    pair = PAIR.fullmatch(name)
    figure = found.get(pair[1]) if pair else None
    return figure, [place for place in figure.places if place.name == name] if figure else []


def _missing(probes: HardwareProbes | None, places: list[Place]) -> list[str]:
    """Return where a figure is missing: on the node, or on GPUs that lack what another one has."""
    if not places:
        return [""]
    seen = {place.gpu for place in places if place.peer is None} - {None}
    lacking = [gpu.index for gpu in probes.gpus if gpu.index not in seen] if probes and seen else []
    return [Place("", 0, index).words for index in lacking]


def _held(where: str, value: float, floor: float, figure: NodeFigure | None) -> tuple[Check, str]:
    unit = figure.unit if figure else ""
    if figure is None or figure.better != "higher":
        return _check(
            where, None, floor
        ), f"{where} {shown(value)} {unit}".rstrip() + " is not a rate, and so has no floor."
    check = _check(where, value, floor)
    said = f"{where} {shown(value, floor)} {unit} is below the floor of {shown(floor, value)} {unit}."
    return check, "" if check.passed else said


def _check(where: str, value: float | None, floor: float) -> Check:
    passed = value is not None and value >= floor
    return Check(metric=where, value=value, comparison="at_least", limit=floor, passed=passed)


def _rates_of(path: Path) -> tuple[str, ...]:
    for line in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign) and [ast.unparse(target) for target in line.targets] == [RATES]:
            return tuple(ast.literal_eval(line.value))
    return ()
