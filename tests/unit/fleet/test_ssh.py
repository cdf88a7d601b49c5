import pytest

from benchmark.fleet.ssh import unreachable


@pytest.mark.parametrize(
    ("ssh", "said"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.", "has changed"),
        ("No ED25519 host key is known for jw2.\nHost key verification failed.", "is not known: connect once"),
        ("bench@jw2: Permission denied (publickey).", "was refused: check ansible_user"),
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
