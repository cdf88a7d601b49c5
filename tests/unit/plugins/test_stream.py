import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from stream import StreamError, send_files

from benchmark.fleet.ssh import Ssh

HERE = Ssh("here", lambda line: ["/bin/sh", "-c", line])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "from").mkdir()
    made = [tmp_path / "from" / "small-1.whl", tmp_path / "from" / "large-1.whl"]
    made[0].write_bytes(b"small")
    made[1].write_bytes(bytes(range(256)) * 20_000)  # larger than any pipe
    return made


def test_files_arrive_whole_and_replace_what_was_cut_short(files: list[Path], tmp_path: Path) -> None:
    there = tmp_path / "a 'place'" / "deeper"
    there.mkdir(parents=True)
    (there / "large-1.whl").write_bytes(b"half")
    send_files(HERE, files, str(there), 60)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {f.name: f.read_bytes() for f in files}


def test_a_place_that_cannot_be_written_is_reported(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StreamError, match="Not a directory"):
        send_files(HERE, files, str(tmp_path / "file" / "below"), 60)


def test_a_node_that_takes_nothing_more_is_given_up(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tar that reads nothing, as one on a disk that hangs.
    slow = tmp_path / "bin" / "tar"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{Path(str(shutil.which('sleep'))).parent}:/bin")
    with pytest.raises(StreamError, match=r"did not arrive within 0\.5 s"):
        send_files(HERE, files, str(tmp_path / "there"), 0.5)
