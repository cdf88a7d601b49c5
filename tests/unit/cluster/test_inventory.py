"""Where the inventory has runs kept, asked by commands: real inventories, read by real Ansible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from benchmark.cli import main
from benchmark.cluster.inventory import (
    CHECKOUT,
    PROMETHEUS_DIR,
    asked_results,
    directory_in,
    no_node,
    require_writable,
)
from benchmark.errors import InputError
from tests.unit.building import asked, make_run


def inventory(directory: Path, **files: str) -> str:
    """Make an inventory of two nodes, with these files of variables beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.yml").write_text("gpu_nodes: {hosts: {jw2: {ansible_host: 192.0.2.1}, jw3: {}}}\n")
    for name, text in files.items():
        path = directory / f"{name.replace('__', '/')}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(directory / "hosts.yml")


@pytest.mark.parametrize(
    ("files", "relative"),
    [
        ({"group_vars__gpu_nodes": "benchmark_results_dir: '{}/kept'"}, "kept"),
        ({"group_vars__all__main": "benchmark_results_dir: '{}/all'"}, "all"),
        ({f"host_vars__{node}": "benchmark_results_dir: '{}/host'" for node in ("jw2", "jw3")}, "host"),
        ({"group_vars__all": "base: '{}'\nbenchmark_results_dir: \"{{{{ base }}}}/templated\""}, "templated"),
        ({"group_vars__all": "benchmark_results_dir: ~/mine"}, "~"),
        ({"group_vars__all": "benchmark_results_dir: kept"}, ""),
        ({}, ""),
    ],
)
def test_it_is_what_a_playbook_would_see(tmp_path: Path, files: dict[str, str], relative: str) -> None:
    source = inventory(tmp_path, **{name: text.format(tmp_path) for name, text in files.items()})
    found, why = asked_results([source])
    expected = {"": CHECKOUT / ("kept" if files else "results"), "~": Path.home() / "mine"}
    assert found == expected.get(relative, tmp_path / relative)
    assert (why == source) == bool(files)


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    differ = inventory(
        tmp_path / "a", host_vars__jw2="benchmark_results_dir: x", host_vars__jw3="benchmark_results_dir: y"
    )
    with pytest.raises(InputError, match="differs between nodes: x, y"):
        asked_results([differ])
    locked = VaultLib([("", VaultSecret(b"secret"))]).encrypt("hf_cache_token: x").decode()
    with pytest.raises(InputError, match=r"give --results-dir\. .*[Vv]ault"):
        asked_results([inventory(tmp_path / "b", group_vars__all__vault=locked)])


@pytest.mark.parametrize("given", [{"LC_ALL": "C"}, {"LANG": "xx_XX.UTF-8"}, {}])
def test_it_is_found_in_any_locale(given: dict[str, str], tmp_path: Path) -> None:
    """Ansible itself ends the process in these: a script's, and one that an SSH login brought along."""
    source = inventory(tmp_path, group_vars__all="benchmark_results_dir: ~/f\u00fcr alle")
    make_run(tmp_path / "f\u00fcr alle" / "20250101T000000Z-aaaaaaaa", {"jw2": asked()})
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "list", "-i", source],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "20250101T000000Z-aaaaaaaa" in done.stdout


def test_every_command_reads_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = inventory(tmp_path, group_vars__all=f"benchmark_results_dir: {tmp_path / 'kept'}")
    make_run(tmp_path / "kept" / "20250101T000000Z-aaaaaaaa", {"jw2": asked()})
    said = f"Runs are read from {tmp_path / 'kept'} ({source})."
    for words, ended in (
        (["history"], 0),
        (["aggregate", "latest"], 1),
        (["export", "20250101", "--format", "csv"], 0),
        (["baseline", "show"], 0),
        (["baseline", "set", "latest"], 2),
        (["compare", "latest"], 2),
        (["submission", "latest", "--division", "open", "--submitter", "x", "--output", str(tmp_path / "tree")], 2),
    ):
        assert main([*words, "-i", source]) == ended, words
        assert capsys.readouterr().err.count(said) == 1, words


def test_the_default_place_is_not_worth_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["history", "-i", inventory(tmp_path)])
    assert "Runs are read from" not in capsys.readouterr().err


def test_a_directory_for_prometheus(tmp_path: Path) -> None:
    assert directory_in(PROMETHEUS_DIR, []) is None
    assert directory_in(PROMETHEUS_DIR, ["prom", "prom"]) == CHECKOUT / "prom"
    with pytest.raises(InputError, match="benchmark_prometheus_dir belongs to the whole run and differs"):
        directory_in(PROMETHEUS_DIR, ["", "prom"])
    require_writable(PROMETHEUS_DIR, tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(
            InputError, match=f"benchmark_prometheus_dir: there is no directory {path} on the controller"
        ):
            require_writable(PROMETHEUS_DIR, path)


def test_without_an_inventory_ansible_is_not_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "list"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "ANSIBLE_INVENTORY": str(tmp_path / "hosts.yml")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "WARNING" not in done.stderr
    with pytest.raises(InputError, match=r"hosts\.yml: there is no such inventory"):
        asked_results([str(tmp_path / "hosts.yml")])


def test_an_empty_group_is_told_by_the_inventory_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("")
    assert "copy inventory/hosts.example.yml" in no_node({}, [str(CHECKOUT / "inventory/hosts.yml")])
    assert no_node({}, [str(tmp_path / "hosts.yml")]).startswith(
        f"The group gpu_nodes is empty: {tmp_path / 'hosts.yml'} lists no hosts. List your nodes there"
    )
    absent = no_node({}, [str(tmp_path / "absent.yml")])
    assert absent == f"{tmp_path / 'absent.yml'}: there is no such inventory (-i), and so the group gpu_nodes is empty."
