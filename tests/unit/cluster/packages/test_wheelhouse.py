import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster.packages import wheelhouse
from benchmark.cluster.packages.wheelhouse import MANIFEST, Wheelhouse, load, require_pins
from benchmark.errors import InputError
from benchmark.files import file_sha256, read_record
from tests.unit.cluster.wheel_files import make_source, make_wheel

OTHER = f"cp3{sys.version_info.minor + 1}-cp3{sys.version_info.minor + 1}-manylinux_2_28_x86_64"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes for all the packages of the world."""
    directory = tmp_path / "index"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nno-index = true\nfind-links = {directory}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    make_wheel(directory, "alpha", "1.0", "beta>=2", 'gone; python_version < "3"')
    make_wheel(directory, "beta", "2.5")
    make_wheel(directory, "beta", "1.0")
    return directory


@pytest.fixture
def made(tmp_path: Path, index: Path) -> Path:
    """A wheelhouse of alpha and beta, which somebody filled by hand: all is there, and pip is not asked."""
    make_wheel(tmp_path / "house", "alpha", "1.0", "beta>=2")
    make_wheel(tmp_path / "house", "beta", "2.5")
    assert fill(tmp_path, "alpha==1.0\n") == 0
    return tmp_path / "house"


def fill(tmp_path: Path, requirements: str, *words: str) -> int:
    (tmp_path / "pins.txt").write_text(requirements)
    return main(["wheelhouse", str(tmp_path / "house"), "--requirements", str(tmp_path / "pins.txt"), *words])


def files(house: Path) -> list[str]:
    return sorted(path.name for path in house.iterdir())


def test_exactly_what_is_needed_comes_with_its_checksums(index: Path, tmp_path: Path) -> None:
    made = tmp_path / "house"
    assert fill(tmp_path, "alpha==1.0\n") == 0
    assert files(made) == ["alpha-1.0-py3-none-any.whl", "beta-2.5-py3-none-any.whl", MANIFEST]
    house = read_record(made / MANIFEST, Wheelhouse)
    for wheel in house.wheels:
        sums = subprocess.run(["sha256sum", made / wheel.file], capture_output=True, text=True, check=True).stdout
        assert sums.startswith(wheel.sha256 + " ")
        assert wheel.size == (made / wheel.file).stat().st_size
        assert wheel.source == "package index"
    assert load(made) == house
    assert house.size == sum(path.stat().st_size for path in made.glob("*.whl"))
    # With other pins: what was brought for the old ones goes.
    make_wheel(index, "beta", "2.6")
    assert fill(tmp_path, "alpha==1.0\nbeta==2.6") == 0
    assert files(made) == ["alpha-1.0-py3-none-any.whl", "beta-2.6-py3-none-any.whl", MANIFEST]


def test_a_second_time_nothing_is_asked_for(made: Path, index: Path, tmp_path: Path) -> None:
    before = (made / MANIFEST).read_bytes()
    make_wheel(index, "beta", "2.6")
    assert fill(tmp_path, "alpha==1.0\n") == 0
    assert (made / MANIFEST).read_bytes() == before


def test_what_somebody_put_there_is_taken_or_left(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(made, "mine", "1")
    assert fill(tmp_path, "alpha==1.0\n") == 0
    assert "Not needed, and left in place: mine-1-py3-none-any.whl." in capsys.readouterr().out
    assert {wheel.name: wheel.source for wheel in load(made).wheels} == {
        "alpha": "was in the directory",
        "beta": "was in the directory",
    }


def test_another_python_shares_the_directory(tmp_path: Path) -> None:
    for python in ("38", "39"):
        make_wheel(tmp_path / "house", "gamma", "1", tag=f"cp{python}-cp{python}-manylinux2014_x86_64")
    for python in ("3.9", "3.8"):
        assert fill(tmp_path, "gamma==1\n", "--python", python) == 0
    house = load(tmp_path / "house")
    assert [target.python for target in house.made_for] == ["3.8", "3.9"]
    assert len(house.wheels) == 2
    require_pins(tmp_path / "house", "gamma==1")


def test_a_package_that_is_source_alone_is_built(index: Path, tmp_path: Path) -> None:
    archive = make_source(index, "delta", "3")
    assert fill(tmp_path, "delta==3\n") == 0
    (wheel,) = load(tmp_path / "house").wheels
    assert wheel.file == "delta-3-py3-none-any.whl"
    assert wheel.source.startswith("built here from delta-3.tar.gz of the package index, SHA-256 ")
    assert file_sha256(archive) in wheel.source
    assert files(tmp_path / "house") == [wheel.file, MANIFEST]


def test_a_build_that_only_fits_this_machine_is_refused(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(index, "delta", "3", tag=OTHER)
    assert fill(tmp_path, "delta==3\n") == 3
    said = capsys.readouterr().err
    assert f"delta-3.tar.gz is only published as source, and builds delta-3-{OTHER}.whl" in said
    assert files(tmp_path / "house") == []


def test_a_wheel_with_another_checksum_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alpha, beta = load(made).wheels
    stated = f"alpha==1.0 --hash=sha256:{alpha.sha256}\nbeta==2.5 \\\n  --hash=sha256:{{}}\n"
    assert fill(tmp_path, stated.format(beta.sha256)) == 0
    require_pins(made, stated.format(beta.sha256))
    reported = (
        f"beta-2.5-py3-none-any.whl in {made} is not in the requirements' list for beta: its SHA-256 is {beta.sha256}"
    )
    with pytest.raises(InputError, match=re.escape(reported)):
        require_pins(made, stated.format("0" * 64))
    assert fill(tmp_path, stated.format("0" * 64)) == 2
    assert reported in capsys.readouterr().err
    # As pip has it: where one is stated, all are.
    with pytest.raises(InputError, match="not in the requirements' list for beta"):
        require_pins(made, stated.partition("\n")[0])


def test_what_lacks_is_reported_with_the_file_that_it_is_for(made: Path) -> None:
    with pytest.raises(InputError, match=r"REQUIREMENTS=requirements-vllm\.txt adds what is missing"):
        require_pins(made, "vllm==1", "requirements-vllm.txt")


def test_what_the_index_lacks_is_reported(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill(tmp_path, "absent==1\n") == 3
    assert "No matching distribution found for absent==1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--python", "2.7"], "--python 2.7"),
        (["--platform", "linux"], "a platform is written as manylinux_2_28_x86_64"),
        (["--requirements", "/nowhere"], "/nowhere cannot be used: No such file"),
    ],
)
def test_wrong_options_are_reported(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pins.txt").write_text("")
    assert fill(tmp_path, "", *words) == 2
    assert said in capsys.readouterr().err


def test_a_wheel_that_is_gone_cut_or_damaged_is_reported(made: Path) -> None:
    beta = made / "beta-2.5-py3-none-any.whl"
    whole = beta.read_bytes()
    beta.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=f"has {len(whole) - 1} bytes instead of {len(whole)} in "):
        load(made)
    beta.unlink()
    with pytest.raises(InputError, match=r"beta-2\.5-py3-none-any\.whl is missing in "):
        load(made)
    beta.write_bytes(b"no archive")
    with pytest.raises(InputError, match="is not a complete wheel"):
        wheelhouse.read_wheel(beta, "")


def test_no_directory_and_no_manifest_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"has no {MANIFEST}: make wheelhouse WHEELHOUSE="):
        load(tmp_path)


def test_every_pin_has_to_be_there(made: Path) -> None:
    require_pins(made, "alpha==1.0\n")
    with pytest.raises(InputError, match=r"has no wheel of alpha==1\.1, zeta for Python 3"):
        require_pins(made, "alpha==1.1\nzeta\n")
