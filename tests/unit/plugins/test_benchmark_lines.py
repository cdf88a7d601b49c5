"""What ansible-playbook prints for many nodes."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "All is well", "ansible.builtin.set_fact": {"x": 1}},
            {
                "name": "One is not",
                "ansible.builtin.fail": {"msg": "no"},
                "when": "inventory_hostname == 'node05'",
                "ignore_errors": True,
            },
            {
                "name": "Fail for a reason",
                "block": [{"name": "Why", "ansible.builtin.fail": {"msg": "no disk is there"}}],
                "rescue": [{"name": "The same again", "ansible.builtin.fail": {"msg": "role: no disk is there"}}],
                "when": "inventory_hostname == 'node06'",
            },
            {"name": "Say it", "ansible.builtin.debug": {"msg": "a word"}, "run_once": True},
            # As a log of a node may have it: red, another title of the window, an empty screen.
            {
                "name": "Judge all of them",
                "ansible.builtin.fail": {"msg": "an \x1b[31merror\x1b]0;x\x07\x1b[2J"},
                "run_once": True,
            },
        ],
    }
]


def test_many_nodes_that_are_well_share_a_line(tmp_path: Path) -> None:
    playbook, inventory = tmp_path / "play.yml", tmp_path / "hosts.yml"
    playbook.write_text(yaml.safe_dump(PLAY))
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {f"node{n:02}": None for n in range(1, 16)}}}))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(playbook), "-f", "4"],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    _, well, one, why, again, said, judged = done.stdout.split("TASK [")
    assert "fatal: [cluster]: FAILED!\n    an ?[31merror?]0;x??[2J\n" in judged, "which is no node's fault"
    failed = {line.split()[0]: "failed=1" in line for line in judged.splitlines() if "unreachable=" in line}
    assert [node for node, has in failed.items() if has] == ["cluster", "node06"]
    counts = next(line for line in judged.splitlines() if line.startswith("node01 "))
    assert "ok=1 " in counts, "what runs once is no work on a node"
    assert (why + again).count("no disk is there") == 1, "as often as there is a reason"
    assert "fatal: [node06]: FAILED! See the reason above." in again
    reported = [line for line in well.splitlines() if line.startswith("ok: ")]
    assert len(reported) == 9
    assert reported[-1].startswith("ok: 7 more (")
    assert reported[-1].endswith(" and 2 more)")
    assert "fatal: [node05]: FAILED!" in one
    assert "a word" in said
