"""The command to run it again is the one that was given, without what is secret, and a shell takes it as it is."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import yaml
from ansible.cli.playbook import PlaybookCLI
from ansible.errors import AnsibleError
from ansible.parsing.splitter import parse_kv
from ansible.parsing.vault import VaultLib, VaultSecret
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from command_line import CALLED_AS, CommandLine, command_line

from benchmark.cluster import playbook

HERE = Path("/checkout")
WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(
    [
        "benchmark_target_qps",
        "hf_cache_dir",
        "python_env_dir",
        "my_gpus",
        "hf_cache_token",
        "benchmark_endpoint_api_key",
    ]
)
SECRET = ("hf_cache_token", "benchmark_endpoint_api_key")


@cache
def parser() -> argparse.ArgumentParser:
    cli = PlaybookCLI(["ansible-playbook"])
    cli.init_parser()
    return cli.parser  # type: ignore[no-any-return]


def extras_of(argv: Sequence[str]) -> list[str]:
    """Return the values of -e as ansible-playbook's own parser finds them."""
    return list(parser().parse_args(argv[1:]).extra_vars or ())


def again(argv: Sequence[str], cwd: Path = HERE, secrets: Sequence[str] = ()) -> CommandLine:
    return command_line(argv, extras_of(argv), checkout=HERE, cwd=cwd, secrets=secrets)


@settings(max_examples=200)
@given(values=st.lists(WORD, max_size=4), inventory=WORD, data=st.dictionaries(NAMES, WORD, max_size=4))
def test_what_is_not_secret_comes_back_as_it_was(values: list[str], inventory: str, data: dict[str, str]) -> None:
    given_json = json.dumps({name: value for name, value in data.items() if name not in SECRET})
    words = ["-i", f"i{inventory}", "--ask-vault-pass", "-e", given_json, "playbooks/benchmark.yml"]
    for value in values:
        pairs = f"benchmark_model={json.dumps(value)}", f"my_var={shlex.quote(value)}"
        with suppress(AnsibleError):  # it refuses these, and no run is opened
            assert [*map(parse_kv, pairs)]
            words += ["-e", pairs[0], f"--extra-vars={pairs[1]}"]
    line = again(["/venv/bin/ansible-playbook", *words])
    assert shlex.split(line.text) == ["ansible-playbook", *words]
    assert line.hidden == ()


@settings(max_examples=200)
@given(data=st.dictionaries(NAMES, st.text("abc xyz'\"{}=:,$`#\\", max_size=9), max_size=5), flag=st.booleans())
def test_of_json_only_secrets_are_left_out(data: dict[str, str], flag: bool) -> None:
    words = [f"--extra-vars={json.dumps(data)}"] if flag else ["-e", json.dumps(data)]
    line = again(["ansible-playbook", "p.yml", *words, "--limit", "jw2"])
    left = {name: value for name, value in data.items() if name not in SECRET}
    found = [yaml.safe_load(each) for each in extras_of(shlex.split(line.text))]
    assert found == ([left] if left or not data else [])
    assert line.hidden == tuple(name for name in data if name in SECRET)
    assert shlex.split(line.text)[-2:] == ["--limit", "jw2"]


@pytest.mark.parametrize(
    ("given", "left", "hidden"),
    [
        ("benchmark_model=org/name x=2", {"benchmark_model": "org/name", "x": "2"}, ()),
        ("benchmark_endpoint_api_key=quiet", None, ("benchmark_endpoint_api_key",)),
        ("hf_cache_dir=/h benchmark_environment={}", {"hf_cache_dir": "/h"}, ("benchmark_environment",)),
        ("a='b c' hf_cache_token='quiet one' d=\"e f\"", {"a": "b c", "d": "e f"}, ("hf_cache_token",)),
        ("python_env_dir=/x ansible_port=2222", {"python_env_dir": "/x", "ansible_port": "2222"}, ()),
        ("ansible_ssh_private_key_file=~/.ssh/id", {"ansible_ssh_private_key_file": "~/.ssh/id"}, ()),
        ("ansible_become_password=quiet", None, ("ansible_become_password",)),
        ("ansible_ssh_pass=quiet x=1", {"x": "1"}, ("ansible_ssh_pass",)),
        ("vault_hf_token=quiet", None, ("vault_hf_token",)),
        ("ansible_private_key=quiet x=1", {"x": "1"}, ("ansible_private_key",)),
        ("db_passwd=quiet x=1 db_pwd=quiet", {"x": "1"}, ("db_passwd", "db_pwd")),
        ("x=1 AWS_SECRET_ACCESS_KEY=quiet", {"x": "1"}, ("AWS_SECRET_ACCESS_KEY",)),
        ("mirror=https://me:quiet@mirror/simple x=1", {"x": "1"}, ("mirror",)),
        ("mirror=https://mirror/simple:quick@1", {"mirror": "https://mirror/simple:quick@1"}, ()),
        ("elsewhere=say_quiet_please", None, ("elsewhere",)),
        ("benchmark_engine_options='{\"max_tokens\": 3}'", {"benchmark_engine_options": '{"max_tokens": 3}'}, ()),
    ],
)  # fmt: skip
def test_of_names_and_values_only_secrets_are_left_out(
    given: str, left: dict[str, str] | None, hidden: tuple[str, ...]
) -> None:
    for words in (["-e", given], [f"-e{given}"], [f"--extra-vars={given}"], ["-ve", given]):
        line = again(["ansible-playbook", "-i", "x", *words, "p.yml"], secrets=["say_quiet"])
        assert "quiet" not in line.text
        assert line.hidden == hidden
        assert [parse_kv(each) for each in extras_of(shlex.split(line.text))] == ([left] if left else [])
        assert shlex.split(line.text)[-1] == "p.yml"


def test_a_proxy_s_password_is_left_out_with_its_variable() -> None:
    given = json.dumps({"node_environment": {"HTTPS_PROXY": "http://me:quiet@proxy:3128"}, "benchmark_model": "m"})
    line = again(["ansible-playbook", "p.yml", "-e", given])
    assert "quiet" not in line.text
    assert line.hidden == ("node_environment",)
    without = json.dumps({"node_environment": {"HTTPS_PROXY": "http://proxy:3128"}})
    assert again(["ansible-playbook", "p.yml", "-e", without]).hidden == ()


def test_a_module_of_python_is_the_same_program() -> None:
    assert again(["/lib/ansible/__main__.py", "playbook", "p.yml", "-e", "x=1"]).text == "ansible-playbook p.yml -e x=1"


@pytest.mark.parametrize("activated", [True, False])
def test_from_ci_it_is_what_the_caller_s_shell_finds(monkeypatch: pytest.MonkeyPatch, activated: bool) -> None:
    program = Path(sys.executable).with_name("ansible-playbook")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin" if activated else "/usr/bin")
    given = playbook._environment()
    assert CALLED_AS == playbook.CALLED_AS
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert again([str(program), "p.yml"]).text == f"{'ansible-playbook' if activated else program} p.yml"


def test_files_and_the_vault_stay() -> None:
    argv = ["ansible-playbook", "p.yml", "-e", "@secrets.yml", "--vault-password-file", "my pass", "--vault-id", "a@b"]
    assert shlex.split(again(argv).text) == argv


def test_the_line_runs_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_CONFIG", "/a b/ansible.cfg")
    programs, place = tmp_path / "bin", tmp_path / "it's here"
    programs.mkdir()
    place.mkdir()
    program = programs / "ansible-playbook"
    program.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$ANSIBLE_CONFIG" "$@"\n')
    program.chmod(0o755)
    words = ["p.yml", "-e", '{"benchmark_model": "it\'s $HOME `id` !x"}', "--limit", "!jw2"]
    line = again(["ansible-playbook", *words], cwd=place).text
    for shell in ("sh", "bash", "zsh"):
        assert shutil.which(shell)
        done = subprocess.run(
            [shell, "-c", line], env={"PATH": f"{programs}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == [str(place), "/a b/ansible.cfg", *words]


# What the given variables are, as ansible-playbook itself finds them: kept by a lookup, which starts no module.
DUMP = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ lookup('ansible.builtin.pipe', 'printf %s ' ~ (found | quote) ~ ' > ' ~ (place | quote)) }}"
      vars:
        found: "{{ [inventory_hostname, ansible_limit, q('vars', *names)] | to_json }}"
        place: "{{ lookup('env', 'DUMPED') }}"
"""
ODD = """two words, it's "quoted" $HOME `id` !x #y ~ * \\ {curly} end=1"""


@pytest.mark.parametrize("activated", [True, False], ids=["activated", "by its path"])
def test_pasted_it_gives_the_same_variables(tmp_path: Path, activated: bool) -> None:
    place = tmp_path / "it's a place"
    (place / "my vars").mkdir(parents=True)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}
    environment["PATH"] = f"{Path(program).parent}:{environment['PATH']}" if activated else environment["PATH"]
    (place / "dump it.yml").write_text(DUMP)
    (place / "my hosts.yml").write_text("all: {hosts: {jw2: {ansible_connection: local}, jw3: }}")
    (place / "my vars" / "plain.yml").write_text(yaml.safe_dump({"plain": ODD}))
    secret = VaultSecret(b"sesame")
    sealed = VaultLib([("dev", secret)]).encrypt(yaml.safe_dump({"sealed": "from the vault"}), secret, "dev")
    (place / "my vars" / "sealed.yml").write_bytes(sealed)
    (place / "my pass").write_text("sesame")
    vault = ["--vault-id", "dev@my pass"]
    names = ["benchmark_model", "spaced", "listed", "several", "short", "plain", "sealed", "umlaut"]
    words = [
        *("dump it.yml", "--limit", "!jw3", *vault),
        *("-e", json.dumps({"benchmark_model": ODD, "names": names})),
        f"-espaced={shlex.quote(ODD)}",
        '--extra-vars=listed=\'[1, {"a": "b c"}]\' short=x',
        *("--extra-vars", "{several: 'one\n\n  two', umlaut: \N{LATIN SMALL LETTER U WITH DIAERESIS}}"),
        *("-e", "@my vars/plain.yml", "-e", "@my vars/sealed.yml"),
    ]
    # The inventory by a word, or by the environment.
    words += ["-i", "my hosts.yml"] if activated else []
    more = {} if activated else {"ANSIBLE_INVENTORY": "my hosts.yml"}
    dumped = [tmp_path / "first", tmp_path / "again"]
    subprocess.run(
        [program, *words],
        cwd=place,
        env={**environment, **more, "DUMPED": str(dumped[0])},
        check=True,
        capture_output=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PATH": environment["PATH"], **more}.items():
            patch.setenv(name, value)
        line = again([program, *words, "-e", "hf_cache_token=hidden"], cwd=place).text
    assert "hidden" not in line
    subprocess.run(
        ["bash", "-c", line], cwd="/", env={**environment, "DUMPED": str(dumped[1])}, check=True, capture_output=True
    )
    first, second = (json.loads(path.read_text()) for path in dumped)
    assert first == second
    assert first[:2] == ["jw2", "!jw3"]
    assert first[2][0] == first[2][5] == ODD
    assert first[2][6] == "from the vault"
