"""Host keys: known, new, changed; and that no node can write more than one key's line."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.host_keys import HostKey, judge, known_name, read_address, read_confirmed, read_keys, same_keys
from benchmark.errors import InputError

ED, OTHER, RSA = HostKey("ssh-ed25519", "AAAA"), HostKey("ssh-ed25519", "BBBB"), HostKey("ssh-rsa", "CCCC")
CONFIG = """host jw2
hostname 10.0.0.2
port 2222
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile /home/u/.ssh/known_hosts /home/u/.ssh/known_hosts2
addressfamily any
"""


@pytest.mark.parametrize(
    ("seen", "held", "state"),
    [
        ([ED], [], "unknown"),
        ([ED], [HostKey(*OTHER.pair, "@cert-authority")], "unknown"),
        ([ED, RSA], [ED], "known"),
        ([ED], [ED, OTHER], "known"),
        ([ED], [OTHER], "changed"),
        ([ED], [RSA], "changed"),
        # One kind still fits, another does not: somebody may offer a key of his own.
        ([ED, RSA], [OTHER, RSA], "changed"),
        ([ED], [HostKey(*ED.pair, "@revoked")], "revoked"),
        ([ED], [ED, HostKey(*ED.pair, "@revoked")], "revoked"),
    ],
)
def test_what_known_hosts_makes_of_a_key(seen: list[HostKey], held: list[HostKey], state: str) -> None:
    assert judge(seen, held) == state


def test_keys_are_read_as_keyscan_and_known_hosts_write_them() -> None:
    text = (
        "# 10.0.0.2:2222 SSH-2.0-OpenSSH_9.2p1\n"
        "[10.0.0.2]:2222 ssh-ed25519 AAAA\n[10.0.0.2]:2222 ssh-ed25519 AAAA a comment\n"
        "@revoked * ssh-rsa CCCC\n\nnonsense\n|1|c2FsdA==|aGFzaA== ecdsa-sha2-nistp256 DDD=\n"
    )
    assert read_keys(text) == (ED, HostKey(*RSA.pair, "@revoked"), HostKey("ecdsa-sha2-nistp256", "DDD="))
    assert ED.line("[10.0.0.2]:2222") == "[10.0.0.2]:2222 ssh-ed25519 AAAA"


@given(st.text())
def test_whatever_a_node_sends_a_key_is_three_fields_on_one_line(text: str) -> None:
    for key in read_keys(f"host ssh-ed25519 {text}\n{text}"):
        line = HostKey(*key.pair).line("host")
        assert len(line.split()) == 3
        assert len(line.splitlines()) == 1
        assert line.isascii()


def test_an_address_is_what_ssh_says() -> None:
    address = read_address(CONFIG)
    assert (address.host, address.port, address.name) == ("10.0.0.2", 2222, "[10.0.0.2]:2222")
    assert address.files == ("/home/u/.ssh/known_hosts", "/home/u/.ssh/known_hosts2")
    assert address.system_files[0] == "/etc/ssh/ssh_known_hosts"
    assert address.proxy == ""
    assert known_name("10.0.0.2", 22) == "10.0.0.2"
    assert read_address(CONFIG + "hostkeyalias jw2\n").name == "jw2"
    assert read_address(CONFIG + "proxyjump bastion\n").proxy == "bastion"
    with pytest.raises(InputError, match="does not say"):
        read_address("port 22\n")


@given(st.lists(st.binary(min_size=32, max_size=32)))
def test_confirmed_fingerprints_are_separated_by_commas(digests: list[bytes]) -> None:
    prints = ["SHA256:" + base64.b64encode(digest).decode().rstrip("=") for digest in digests]
    assert read_confirmed(",".join(prints)) == set(prints)
    assert read_confirmed(" , ".join(prints)) == set(prints)


@pytest.mark.parametrize("word", ["yes", "SHA256:short", "MD5:" + "a" * 43, "SHA256:" + "a" * 44, "*"])
def test_what_is_no_fingerprint_is_named(word: str) -> None:
    with pytest.raises(InputError, match="is not a fingerprint"):
        read_confirmed(f"SHA256:{'a' * 43},{word}")


def test_nodes_that_give_the_same_key_are_named() -> None:
    assert same_keys({"jw2": ["SHA256:a", "SHA256:b"], "jw3": ["SHA256:c"], "jw4": []}) == []
    (sentence,) = same_keys({"jw2": ["SHA256:a"], "jw3": ["SHA256:c"], "jw4": ["SHA256:a"]})
    assert sentence.startswith("jw2, jw4 give the same SSH host key (SHA256:a). Either they are one machine")
