"""The shell that runs on nodes, and what is said of it."""

import pytest

from benchmark.fleet.programs import why_refused


@pytest.mark.parametrize("said", ["it packed nothing", "tar: no such luck.", " gzip: not\nfound "])
def test_what_failed_is_a_whole_sentence(said: str) -> None:
    """Another one follows it: where the files stay."""
    reason = why_refused("pack.sh", said, "~/runs/1")
    assert reason == f"pack.sh failed on the node: {' '.join(said.split()).rstrip('.')}."
