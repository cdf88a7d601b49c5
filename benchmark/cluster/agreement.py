"""Whether like nodes agree: on the same hardware and software, greedy tokens must be the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from benchmark.cluster.arithmetic import comparison_key
from benchmark.cluster.names import natural
from benchmark.cluster.results.load import LoadedNode
from benchmark.records import Agreement, Disagreement

# Packages whose version may change which token is most likely.
SOFTWARE = ("torch", "transformers", "tokenizers", "accelerate")

Tokens = tuple[int, ...]


def agreements(counted: Iterable[LoadedNode]) -> tuple[Agreement, ...]:
    """Return, for every set of two or more nodes that must agree, whether they do."""
    sets: dict[tuple[tuple[str, str], ...], list[LoadedNode]] = {}
    for node in sorted(counted, key=lambda node: natural(node.node)):
        if _greedy(node):
            sets.setdefault(tuple(sorted(_alike(node).items())), []).append(node)
    return tuple(
        _compare({node.node: _greedy(node) for node in nodes}) for _, nodes in sorted(sets.items()) if len(nodes) > 1
    )


def _alike(node: LoadedNode) -> dict[str, str]:
    seen = node.result.environment if node.result else None
    packages = seen.packages if seen else {}
    server = seen.server_packages if seen else {}
    reported = {name: packages.get(name, "") for name in SOFTWARE} | {f"server {name}": server[name] for name in server}
    return {**comparison_key(node), **reported}


def _greedy(node: LoadedNode) -> Mapping[str, Tokens]:
    accuracy = node.result.accuracy if node.result else None
    return accuracy.greedy if accuracy else {}


def _compare(tokens: Mapping[str, Mapping[str, Tokens]]) -> Agreement:
    """Compare every node with the answer of most nodes, or with the first node's where no answer has a majority."""
    found = []
    prompts = list(dict.fromkeys(prompt for answers in tokens.values() for prompt in answers))
    named: set[str] = set()
    for prompt in prompts:
        # A failed query is not a different answer; the verdict covers it.
        answers = {node: each[prompt] for node, each in tokens.items() if prompt in each}
        reference = _most(list(answers.values()))
        others = tuple(node for node, answer in answers.items() if answer == reference)
        for node, answer in answers.items():
            if answer != reference and node not in named:
                named.add(node)  # the first prompt that differs is enough
                found.append(
                    Disagreement(node=node, prompt=prompt, position=first_difference(answer, reference), others=others)
                )
    return Agreement(nodes=tuple(tokens), prompts=len(prompts), disagreements=tuple(found))


def _most(answers: Sequence[Tokens]) -> Tokens:
    return Counter(answers).most_common(1)[0][0]  # the first of equally frequent ones


def first_difference(one: Tokens, other: Tokens) -> int:
    """Return the first position, from 0, at which two sequences differ; the end of the shorter one counts."""
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))
