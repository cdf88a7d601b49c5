"""What a playbook prints reaches a file or a pipe (tee, cron, nohup) when it is printed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
PLAY = """\
- hosts: localhost
  gather_facts: false
  connection: local
  tasks:
    - {name: Say something, ansible.builtin.debug: {msg: hello}}
    - {name: Wait until somebody has heard it, ansible.builtin.raw: "read -r _ < {{ playbook_dir }}/heard"}
"""


def test_lines_come_as_they_are_printed(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    os.mkfifo(tmp_path / "heard")
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "play.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    # Only where nothing is heard: the other end of the pipe would wait for ever.
    late = threading.Timer(120, process.kill)
    late.start()
    assert process.stdout
    with process:
        for line in process.stdout:
            if "hello" in line:
                with (tmp_path / "heard").open("w") as heard:
                    heard.write("yes\n")
    late.cancel()
    assert process.returncode == 0
