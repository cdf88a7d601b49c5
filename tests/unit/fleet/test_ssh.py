import asyncio
import os
import signal
from pathlib import Path

import pytest

from benchmark.fleet.ssh import Ssh, dropped, unreachable


@pytest.mark.parametrize(
    ("ssh", "said"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.", "keygen -R jw2)"),
        (
            "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nOffending ED25519 key in /my keys/known:7\n"
            "Host key for [10.0.0.2]:2222 has changed and you have requested strict checking.\n",
            "remove the old key (ssh-keygen -f '/my keys/known' -R '[10.0.0.2]:2222')",
        ),
        (
            "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\n"
            f"Offending ECDSA key in {Path.home()}/.ssh/known_hosts:7\n  remove with:\n  ssh-keygen -f x -R y\n"
            "Host key for jw2 has changed and you have requested strict checking.\n",
            "remove the old key (ssh-keygen -R jw2)",
        ),
        ("No ED25519 host key is known for jw2.\nHost key verification failed.", "is not known: connect once"),
        ("bench@jw2: Permission denied (publickey).", "to bench@jw2 was refused: it has no such user, or accepts"),
        ("Idle sessions are timed out.\nbench@jw2: Permission denied (publickey).", "or accepts none of this"),
        ("bench@jw2: Permission denied (publickey,password).", "check ansible_user, then ssh-copy-id bench@jw2."),
        ("bench@jw2: Permission denied (password).", "its sshd accepts no keys from this user, only password: see Pub"),
        (
            "no such identity: /k/id: No such file or directory\nbench@jw2: Permission denied (publickey).",
            "there is no key /k/id on this controller: set ansible_ssh_private_key_file",
        ),
        (
            "@@@ WARNING: UNPROTECTED PRIVATE KEY FILE! @@@\nPermissions 0644 for '/k/id' are too open.\n"
            'Load key "/k/id": bad permissions\nbench@jw2: Permission denied (publickey).',
            "the key /k/id because others can read it: chmod 600 /k/id.",
        ),
        (
            'Load key "/k/id": error in libcrypto\nbench@jw2: Permission denied (publickey).',
            "the file /k/id is not a private key that ssh can use (error in libcrypto)",
        ),
        (
            'Load key "/k/id": Permission denied\nbench@jw2: Permission denied (publickey).',
            "the key /k/id cannot be read here (Permission denied)",
        ),
        (
            'Load key "/k/id": incorrect passphrase supplied to decrypt private key\nb@jw2: Permission denied.',
            "the key /k/id has a passphrase: load it once with ssh-add /k/id.",
        ),
        (
            "sign_and_send_pubkey: signing failed for ED25519: agent refused operation\nb@jw2: Permission denied.",
            "the ssh-agent refused to sign",
        ),
        (
            "Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures",
            "after too many keys: set ansible_ssh_private_key_file and, in ssh's configuration, IdentitiesOnly yes.",
        ),
        (
            "Invalid/incorrect password: Permission denied, please try again.",
            "the password is wrong, or there is no",
        ),
        ("ControlPath too long ('/very/long' >= 108 bytes)", "set ANSIBLE_SSH_CONTROL_PATH_DIR to a short directory"),
        ("command-line: line 0: Bad configuration option: foo", "ssh rejects its configuration: command-line"),
        ("Unable to negotiate with 10.0.0.2 port 22: no matching host key type found.", "no algorithm in common"),
        ("ssh: connect to host jw2 port 22: Connection refused", "Nothing answers SSH at jw2"),
        ("ssh: connect to host jw2 port 22: Connection timed out", "does not answer"),
        ("ssh: Could not resolve hostname jw2: Name or service not known", "set ansible_host"),
        ("ssh: connect to host jw2 port 22: No route to host", "no route to jw2"),
        ("kex_exchange_identification: read: Connection reset by peer", "kex_exchange_identification"),
    ],
)
def test_a_failed_connection_is_one_sentence(ssh: str, said: str) -> None:
    sentence = unreachable(ssh, "jw2")
    assert said in sentence
    assert sentence.startswith("Not reachable: ")
    assert "\n" not in sentence


CLOSED = "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n"
FORWARDING = f"stdio forwarding failed\n{CLOSED}"


@pytest.mark.parametrize(
    ("ssh", "said"),
    [
        (f"ssh: connect to host bastion port 22: Connection refused\n{CLOSED}", "host bastion, on the way to jw2,"),
        (f"ssh: connect to host bastion port 22: Connection timed out\n{CLOSED}", "it does not answer: is it up?"),
        (f"ssh: Could not resolve hostname bastion: Name or service not known\n{CLOSED}", "its name is not known."),
        (f"No ED25519 host key is known for bastion and you\nHost key verification failed.\n{CLOSED}", "host bastion,"),
        (f"me@bastion: Permission denied (publickey).\n{CLOSED}", "host bastion, on the way to jw2, cannot be used"),
        (f"channel 0: open failed: connect failed: Connection refused\n{FORWARDING}", "jw2: seen from the jump host,"),
        (f"channel 0: open failed: connect failed: No route to host\n{FORWARDING}", "it (No route to host)"),
        (f"channel 0: open failed: connect failed: Name or service not known\n{FORWARDING}", "does not know that name"),
        (f"channel 0: open failed: administratively prohibited: open failed\n{FORWARDING}", "AllowTcpForwarding"),
        # Of a chain each ssh whose way broke says so: here one that was on its way to a second host in between.
        (
            f"channel 0: open failed: connect failed: Connection refused\n{FORWARDING}\n{CLOSED}",
            "A jump host on the way to jw2 cannot reach the next one (Connection refused): is the next one up,",
        ),
        (
            "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out\n",
            "is the node up, and is the jump host?",
        ),
    ],
)  # fmt: skip
def test_a_host_in_between_is_not_taken_for_the_node(ssh: str, said: str) -> None:
    sentence = unreachable(ssh, "jw2")
    assert said in sentence
    assert sentence.startswith("Not reachable: ")
    assert "trust.yml" not in sentence, "which is about the node's own key"
    assert "\n" not in sentence
    assert not dropped(ssh), "trying again would take 20 s and change nothing"


BROKEN_PIPE = "banner exchange: Connection to UNKNOWN port 65535: Broken pipe"


def test_who_is_dropped_for_others_is_let_in_later() -> None:
    assert dropped(CLOSED)
    assert dropped("kex_exchange_identification: read: Connection reset by peer")
    # The way to a jump host ended before ssh wrote to it; why is asked once more.
    assert dropped(BROKEN_PIPE)
    assert not dropped(f"ssh: connect to host jump port 22: Connection refused {BROKEN_PIPE}")
    assert (
        asyncio.run(_way(["sh", "-c", "echo the jump host is down >&2"]).explain(BROKEN_PIPE))
        == "the jump host is down"
    )
    assert not dropped("ssh: connect to host jw2 port 22: Connection refused")


@pytest.mark.parametrize("code", [0, 255])
def test_what_ssh_leaves_running_is_not_waited_for(code: int, tmp_path: Path) -> None:
    # As a master connection does: it outlives the command, and holds its standard error open.
    command = f"echo Permission denied >&2; sleep 1000 & echo $! > {tmp_path}/pid; exit {code}"
    way = _way(["sh", "-c", command])
    try:
        asyncio.run(asyncio.wait_for(way.reset(), 4))
        assert asyncio.run(asyncio.wait_for(way.explain(CLOSED), 4)) == "Permission denied"
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_command_that_hangs_or_is_not_there_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.fleet.ssh.EXPLAIN_S", 0.1)
    for words in (["sleep", "1000"], ["/no/such/program"]):
        assert asyncio.run(_way(words).explain(CLOSED)) == CLOSED


def _way(words: list[str]) -> Ssh:
    return Ssh(address="jw2", command=lambda *_: [], alone=lambda: words, disconnect=lambda: words)
