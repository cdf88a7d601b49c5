"""What a run left is brought here."""

from __future__ import annotations

from tests.unit.fleet.by_hand import Fleet


def test_a_large_archive_is_streamed_and_fetched_again(fleet: Fleet) -> None:
    programs = fleet.directory / "programs"
    programs.mkdir()
    # Breaks off in the middle, the first time.
    (programs / "head").write_text(
        '#!/bin/sh\ncase $3 in *.tar.gz) if [ ! -e "$0.broken" ]; then : > "$0.broken"; /usr/bin/head -c 100000 "$3"; '
        'kill -9 "$(cat session)"; exit; fi ;; esac\nexec /usr/bin/head "$@"\n'
    )
    (programs / "head").chmod(0o755)
    fleet.add(
        "jw2",
        "head -c 3000000 /dev/urandom > telemetry.jsonl; cp telemetry.jsonl ../../../..",
        call=lambda line: ["env", f"PATH={programs}:/usr/bin:/bin", "/bin/sh", "-c", line],
        order={"wait_s": None},
    )
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    sent = (fleet.directory / "telemetry.jsonl").read_bytes()
    assert (fleet.nodes["jw2"].place / "telemetry.jsonl").read_bytes() == sent
    assert ("jw2", "SSH connection lost while fetching, trying again") in fleet.messages
    assert not list(fleet.nodes["jw2"].place.glob("*.tar.gz"))
