"""Environment, key and headers from a vault to a run over real SSH; and that they are nowhere else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from socketserver import StreamRequestHandler
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.integration.conftest import BIN, Done, Playbooks
from tests.integration.ssh_nodes import CHECKOUT
from tests.openai_server import OpenAIServer, Refusal, whole
from tests.webhook import OK, server

KEY, OLD_KEY = "sk-" + "ThisMustBeNowhere" * 2, "sk-" + "NorMustThisOneBe" * 2
HEADER, VARIABLE = "team-" + "AlsoNowhere" * 3, 'it\'s "nowhere" $HOME `too` \\ %s ü'
# Of the webhook that is notified: its address, and a header for it.
WEBHOOK, TOKEN = "/services/" + "NotThisEither" * 2, "token-" + "NorThis" * 4

# A server that the run starts: it prints what it was given, and answers.
STARTED = f"""
import os, sys, time
sys.path.insert(0, {str(CHECKOUT)!r})
from tests.openai_server import OpenAIServer
print("given", os.environ["OF_THE_RUN"], "device", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
print("in the order", os.environ["CUDA_DEVICE_ORDER"], flush=True)
with OpenAIServer(port=int(sys.argv[1])):
    time.sleep(600)
"""


def vault(directory: Path, name: str, **variables: Any) -> str:
    """Encrypt variables; return the option that gives them to a playbook."""
    path = directory / f"{name}.yml"
    path.write_text(yaml.safe_dump(variables))
    words = ["ansible-vault", "encrypt", "--vault-password-file", str(directory / "password"), str(path)]
    subprocess.run([str(BIN / words[0]), *words[1:]], check=True, capture_output=True)
    return f"@{path}"


def of(done: Done, node: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(max(done.run_dir.glob(f"nodes/{node}/mlperf_*.json")).read_text())
    return content


@pytest.mark.timeout(400)
def test_they_reach_the_run_and_are_in_no_file_or_output(playbooks: Playbooks, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of the vault")
    (tmp_path / "server.py").write_text(STARTED)
    given = {"benchmark_environment": {"OF_THE_RUN": VARIABLE, "CUDA_VISIBLE_DEVICES": 5}}
    headers = {"benchmark_endpoint_headers": {"X-Team": HEADER}}
    right = vault(tmp_path, "right", benchmark_endpoint_api_key=KEY, **given, **headers)
    wrong = vault(tmp_path, "wrong", benchmark_endpoint_api_key=OLD_KEY, **given, **headers)
    notified: list[bytes] = []

    def refuse_once(handler: StreamRequestHandler) -> None:
        repeated = f"HTTP/1.1 403 No\r\n\r\nnot you, {TOKEN}, at {WEBHOOK}".encode()
        handler.wfile.write(OK if len(notified) > 1 else repeated)

    shown: list[str] = []
    teams: list[str | None] = []

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        key = request.headers.get("Authorization")
        if key != f"Bearer {KEY}":
            raise Refusal(401, f"Wrong key: {key}")
        if not teams:
            shown.extend(holders("cmdline", KEY, HEADER, VARIABLE) + holders("environ", KEY, HEADER))
        teams.append(request.headers.get("X-Team"))
        async for part in whole(request, body):
            yield part

    with OpenAIServer() as openai, OpenAIServer() as free, server(refuse_once, notified) as hook:
        free.stop()
        openai.answer = answer
        whom = {"benchmark_notify": hook + WEBHOOK, "benchmark_notify_headers": {"Authorization": f"Bearer {TOKEN}"}}
        notifying = ["-e", vault(tmp_path, "notify", **whom)]
        asked = {"benchmark_engine": "endpoint", "benchmark_endpoint_model": "served"}
        hosts = {node: playbooks.cluster.host(node) for node in ("jw2", "jw3")}
        hosts["jw2"] |= {"benchmark_endpoint_urls": [openai.url]}
        hosts["jw3"] |= {
            "benchmark_endpoint_urls": [free.url],
            "benchmark_endpoint_start": f"{playbooks.venv}/bin/python {tmp_path}/server.py {free.port}",
        }
        inventory = playbooks.inventory(hosts, **asked)
        words = ["-vvvvv", "--vault-password-file", str(tmp_path / "password"), *notifying]
        log = {"ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log")}
        refused = playbooks.run("benchmark", *words, "-e", wrong, inventory=inventory, **log)
        assert refused.code != 0
        assert "Wrong key: Bearer ***" in refused.row("jw2")["reason"]
        assert refused.row("jw3")["reason"] == "", "whose server asks for no key"
        # With the right one: what the run was made with is no setting of it, and has to be given again.
        done = playbooks.run(
            "benchmark", *words, "-e", right, "-e", "benchmark_resume=latest", inventory=inventory, **log
        )
        assert done.code == 0, done.output[-4000:]

    assert done.run_dir == refused.run_dir
    assert done.cluster["counted"] == 2
    assert set(teams) == {HEADER}
    said = "benchmark_notify: 127.0.0.1 answered 403 No: not you, ***, at /***. The run is not affected."
    assert said in " ".join(refused.output.split())
    assert "Notified: 127.0.0.1." in done.output
    assert [f"Authorization: Bearer {TOKEN}".encode() in each for each in notified] == [True, True]
    outcomes = [json.loads(each.partition(b"\r\n\r\n")[2])["outcome"] for each in notified]
    assert outcomes == ["invalid", done.cluster["verdict"]["valid"] * "valid" or "invalid"]
    assert shown == []
    for node in ("jw2", "jw3"):
        result = of(done, node)
        assert result["metrics"]["queries"]["completed"] == 8
        assert result["environment"]["variables"] == ["CUDA_VISIBLE_DEVICES", "OF_THE_RUN"]
        assert result["engine"]["details"]["headers"] == ["X-Team"]
    printed = (done.run_dir / "nodes/jw3/endpoint.log").read_text()
    assert "given *** device 5" in printed
    assert "in the order PCI_BUS_ID" in printed

    output = refused.output + done.output
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"ansible.log", "samples.jsonl", "run.json", "order.json", "endpoint.log"} <= {path.name for path in files}
    for secret in (KEY, OLD_KEY, HEADER, VARIABLE, json.dumps(VARIABLE)[1:-1], WEBHOOK, TOKEN):
        assert secret not in output
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def holders(what: str, *secrets: str) -> list[str]:
    """Return the processes, this one left out, that show a secret in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / what).read_bytes()
        except OSError:
            continue
        if any(secret.encode() in content for secret in secrets):
            found.append(f"{what} of {(process / 'cmdline').read_bytes()!r}")
    return found
