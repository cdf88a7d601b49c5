import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from ansible.module_utils import environment_marks as marks
from wheel_supply import WHEELS, target_of

from benchmark.errors import InputError
from tests.unit.plugins.test_python_env_install import environment

DEBIAN = {
    "implementation": "cpython",
    "python": "3.11",
    "machine": "x86_64",
    "libc": "glibc 2.36",
    "threads": False,
    "system": "linux",
}


def ask(directory: Path, python: str, ready: Path) -> list[str]:
    words = ["sh", str(WHEELS), str(directory), python, str(ready)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def test_this_machine_says_what_it_is(tmp_path: Path) -> None:
    facts = json.loads(ask(tmp_path / "venv", sys.executable, tmp_path / "ready")[0])
    assert facts["ready"] == str(tmp_path / "ready")
    assert target_of(facts).python == f"3.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"libc": None}, "on linux with another C library"),
        ({"libc": "musl 1.2"}, "on linux with musl 1.2"),
        ({"implementation": "pypy"}, "python_env_python is pypy on linux"),
        ({"threads": True}, "cpython without a GIL on linux"),
        ({"system": "darwin", "libc": None}, "on darwin"),
    ],
)
def test_a_node_that_no_wheelhouse_is_made_for(changes: dict[str, Any], said: str) -> None:
    assert str(target_of(DEBIAN)) == "Python 3.11 on x86_64 with glibc 2.36"
    with pytest.raises(InputError, match="set python_env_python to one") as caught:
        target_of({**DEBIAN, **changes})
    assert said in str(caught.value)


def test_the_node_tells_what_is_installed_and_what_lies_ready(tmp_path: Path) -> None:
    made = environment(tmp_path / "venv", "f" * 64)
    (made / marks.WHEELS).write_text("numpy==2.4.6 --hash=sha256:0\n")
    ready = tmp_path / "ready"
    ready.mkdir()
    (ready / "a-1.whl").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a-1.whl"
    reported = ask(made, sys.executable, ready)[1:]
    assert reported == ["installed", "numpy==2.4.6 --hash=sha256:0", "ready", empty]
    assert marks.installed_wheels(made) == ["numpy==2.4.6 --hash=sha256:0"]
    # Changed by hand, it will be made anew: nothing of it counts, for the shell and for the module.
    (made / "lib/python3.11/site-packages/more-1.dist-info").mkdir()
    assert ask(made, sys.executable, ready)[1:] == ["installed", "ready", empty]
    assert marks.installed_wheels(made) == []


def test_an_environment_of_another_python_counts_as_none(tmp_path: Path) -> None:
    made = environment(tmp_path / "venv", "f" * 64)
    (made / marks.WHEELS).write_text("numpy==2.4.6 --hash=sha256:0\n")
    other = tmp_path / "other"
    other.write_text(
        f'#!/bin/sh\n[ "$2" = "import sys; print(sys.version)" ] && echo 3.99 || exec {sys.executable} "$@"\n'
    )
    other.chmod(0o755)
    assert ask(made, str(other), tmp_path / "ready")[1:] == ["installed", "ready"]
