"""Environments that exist already: the roles look at them, put the benchmark's code beside them and change nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import vllm_stand_in
from tests.integration.conftest import Done, Playbooks, unmarked
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.ssh_nodes import loopback
from tests.integration.test_airgap import changed
from tests.integration.test_checkouts import PROVIDE
from tests.integration.test_drift import with_another_version
from tests.integration.test_vllm import INSTALL, MODEL

NOBODY = 65534


def conda_like(light: Path, place: Path) -> Path:
    """Make a prefix as conda does: a Python of its own, which finds its packages without a pyvenv.cfg."""
    with_another_version(unmarked(light, place.with_name("for conda")), place)
    (place / "pyvenv.cfg").unlink()
    for program in (place / "bin").glob("python*"):
        program.unlink()
    python = Path(sys.executable).resolve()
    shutil.copy2(python, place / "bin" / "python3")
    library = Path(sysconfig.get_path("stdlib"))
    for part in library.iterdir():
        if part.name != "site-packages":
            (place / "lib" / library.name / part.name).symlink_to(part)
    # One that is shared, if it is.
    for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
        (place / "lib" / shared.name).symlink_to(shared)
    return place


def seen(directory: Path) -> dict[str, tuple[int, int]]:
    """Return what would show that anything in a directory was changed, by path."""
    return {str(one): (one.lstat().st_mtime_ns, one.lstat().st_size) for one in [directory, *directory.rglob("*")]}


def result(done: Done, node: str) -> dict[str, Any]:
    (path,) = done.run_dir.glob(f"nodes/{node}/mlperf_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def host(playbooks: Playbooks, node: str, environment: Path, **more: Any) -> dict[str, Any]:
    own = {"python_env_manage": False, "python_env_dir": str(environment)}
    code = {"python_env_code_dir": f"{playbooks.directory}/nodes/{{{{ inventory_hostname }}}}/own code"}
    return {**playbooks.cluster.host(node), **own, **code, **more}


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts read-only, and gives files to another user")
def test_two_of_them_measure_and_are_left_as_they_were(playbooks: Playbooks) -> None:
    theirs = unmarked(playbooks.venv, playbooks.directory / "an environment")
    conda = conda_like(playbooks.venv, playbooks.directory / "conda")
    for one in [theirs, *theirs.rglob("*")]:
        os.chown(one, NOBODY, NOBODY, follow_symlinks=False)
    mount = f"mount --bind '{theirs}' '{theirs}' && mount -o remount,ro,bind '{theirs}'"
    playbooks.cluster.add("readonly", loopback(60), before=mount)
    before = {one: seen(one) for one in (theirs, conda)}
    inventory = playbooks.inventory(
        {"readonly": host(playbooks, "readonly", theirs), "jw3": host(playbooks, "jw3", conda)}
    )
    try:
        # As text, which is how -e gives what is no JSON.
        given = ("--tags", "preflight,python_env", "-e", "python_env_manage=false")
        would = playbooks.run("provision", "--check", *given, inventory=inventory)
        assert would.code == 0, would.output
        assert f"for the environment {conda}" in " ".join(would.output.split())
        assert not list(playbooks.directory.glob("nodes/*/own code"))

        done = playbooks.run("benchmark", inventory=inventory)
        assert done.code == 0, done.output
        assert sorted(changed(done, PROVIDE)) == ["jw3", "readonly"]
        packages = {node: result(done, node)["environment"]["packages"] for node in ("jw3", "readonly")}
        assert (packages["jw3"]["huggingface_hub"], packages["readonly"]["huggingface_hub"]) == ("2.3.0", "2.4.0")
        assert packages["jw3"]["llm-datacenter-benchmark"], "the wheel lies beside it"
        assert "packages.huggingface_hub" in [one["fact"] for one in done.cluster["drift"]]
        assert {one: seen(one) for one in before} == before

        reset = playbooks.run("reset", "-e", "reset_confirm=yes", inventory=inventory)
        assert reset.code == 0, reset.output
        assert not list(playbooks.directory.glob("nodes/*/own code"))
        assert {one: seen(one) for one in before} == before
    finally:
        playbooks.cluster.nodes.pop("readonly").stop()
        playbooks.cluster.trust()


@pytest.mark.timeout(600)
def test_what_one_lacks_is_named_before_measuring(playbooks: Playbooks) -> None:
    lacking = unmarked(playbooks.venv, playbooks.directory / "lacking")
    old = unmarked(playbooks.venv, playbooks.directory / "old")
    for name in ("psutil", "jinja2"):
        (info,) = (lacking / "lib").glob(f"python3*/site-packages/{name}-*.dist-info")
        shutil.rmtree(info)
    (metadata,) = (old / "lib").glob("python3*/site-packages/pydantic-*.dist-info/METADATA")
    text = metadata.read_text()
    metadata.unlink()
    metadata.write_text(text.replace("\nVersion: 2.", "\nVersion: 1."))
    hosts = {"jw2": host(playbooks, "jw2", lacking), "jw3": host(playbooks, "jw3", old)}
    gone = playbooks.directory / "gone"
    hosts["vanished"] = {**host(playbooks, "jw2", gone), "benchmark_shared_machine": True}
    deaf = playbooks.directory / "deaf"
    (deaf / "bin").mkdir(parents=True)
    (deaf / "bin" / "python3").write_text(
        f'#!/bin/sh\necho Loading a module\nexec {playbooks.venv}/bin/python3 -I "$@"\n'
    )
    (deaf / "bin" / "python3").chmod(0o755)
    hosts["module"] = {**host(playbooks, "jw2", deaf), "benchmark_shared_machine": True}
    inventory = playbooks.inventory(hosts)
    for playbook in ("provision", "benchmark"):
        done = playbooks.run(playbook, inventory=inventory)
        assert done.code != 0
        said = " ".join(done.output.split())
        assert f"{lacking} (python_env_dir) lacks what this run needs: Jinja2<4,>=3.1, psutil<8,>=5.9." in said
        assert f"{old} (python_env_dir) has versions that do not work here: pydantic 1." in said
        assert "(>=2.10,<3 is needed)" in said
        assert f"{deaf} (python_env_dir) has a Python that ignores PYTHONPATH" in said
        assert f"must name an existing environment, and {gone} has no Python that starts" in said
    assert done.row("jw2")["stage"] == done.row("jw3")["stage"] == "python_env"
    assert not list(done.run_dir.glob("nodes/*/samples.jsonl"))
    assert not list(playbooks.directory.glob("nodes/*/own code"))


@pytest.mark.timeout(600)
def test_a_server_of_one_is_started_as_it_is(playbooks: Playbooks) -> None:
    theirs = unmarked(playbooks.venv, playbooks.directory / "theirs")
    (packages,) = (theirs / "lib").glob("python3*/site-packages")
    with zipfile.ZipFile(vllm_stand_in.make(playbooks.directory)) as wheel:
        wheel.extractall(packages)
    program = theirs / "bin" / "vllm"
    program.write_text(f"#!{theirs}/bin/python3\nfrom vllm_stand_in.cli import main\nmain()\n")
    program.chmod(0o755)
    for name in ("torch", "transformers", "tokenizers"):
        (packages / f"{name}-9.dist-info").mkdir()
        version = {"torch": "2.11.0", "transformers": "5.17.0", "tokenizers": "0.22.1"}[name]
        (packages / f"{name}-9.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    before = seen(theirs)
    (playbooks.directory / "model" / "config.json").write_text(json.dumps(MODEL))
    playbooks.variables = {"benchmark_engine": "vllm", "vllm_manage": False, "vllm_dir": str(theirs)}
    inventory = playbooks.inventory({"jw2": host(playbooks, "jw2", theirs)})
    done = playbooks.run("benchmark", inventory=inventory)
    assert done.code == 0, done.output
    assert not changed(done, INSTALL)
    reported = result(done, "jw2")
    assert reported["environment"]["server_packages"] == {
        "vllm": vllm_stand_in.VERSION,
        "torch": "2.11.0",
        "transformers": "5.17.0",
        "tokenizers": "0.22.1",
    }
    assert f"{theirs}/bin/vllm serve" in reported["engine"]["details"]["start"]
    assert seen(theirs) == before
    assert_nothing_runs(playbooks.directory)

    copied = unmarked(theirs, playbooks.directory / "copied")
    (info,) = packages.glob("vllm-*.dist-info")
    shutil.rmtree(info)
    (packages / "vllm-0.9.0.dist-info").mkdir()
    (packages / "vllm-0.9.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.9.0\n")
    hosts = {"jw2": host(playbooks, "jw2", theirs), "jw3": host(playbooks, "jw3", copied, vllm_dir=str(copied))}
    refused = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    assert refused.code != 0
    assert refused.recap("jw2")["changed"] == 0, "its code is there already"
    assert (
        "(vllm_dir) has versions that do not work here: vllm 0.9.0 (>=0.23,<1 is needed)"
        in refused.row("jw2")["reason"]
    )
    assert (
        f"{copied}/bin/vllm starts with {theirs}/bin/python3, where vllm is 0.9.0, but {copied}/bin/python3 has "
        f"{vllm_stand_in.VERSION}: reinstall vLLM there"
    ) in refused.row("jw3")["reason"]
