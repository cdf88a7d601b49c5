"""Names that nothing reads are noticed where they are nearly ours, and somebody's own are let be."""

import re
from pathlib import Path

import pytest

from benchmark.cluster.given_names import KNOWN, OF_PLAYBOOKS, files_of_nobody, meant, unread

CHECKOUT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("target_qps", ["benchmark_target_qps"]),
        ("qps", ["benchmark_target_qps"]),
        ("model", ["benchmark_model"]),
        ("cache_dir", ["hf_cache_dir"]),
        ("bencmark_profile", ["benchmark_profile"]),
        ("benchmarkprofile", ["benchmark_profile"]),
        ("BENCHMARK_PROFILE", ["benchmark_profile"]),
        ("hf_cahce_dir", ["hf_cache_dir"]),
        ("timeout_s", ["benchmark_timeout_s", "python_env_timeout_s", "vllm_timeout_s", "hf_cache_timeout_s"]),
        ("node_enviroment", ["node_environment"]),
        ("submission_submiter", ["submission_submitter"]),
        ("reset_confrim", ["reset_confirm"]),
        ("benchmark_target_qps", []),
        ("benchmark_profil", []),  # refused with the settings
        ("ansible_usr", []),
        ("rack", []),
        ("vault_hf_token", []),
    ],
)
def test_a_name_that_is_nearly_ours(name: str, ours: list[str]) -> None:
    assert meant(name) == ours


def test_a_variable_that_a_template_reads_is_somebodys_own() -> None:
    assert list(unread(["target_qps"], [{"benchmark_target_qps": ["{{ target_qps | float }}"]}])) == []
    (sentence,) = unread(["target_qps", "rack"], ["target_qps", 3, None])
    assert sentence == "target_qps is not a setting, and nothing reads it: did you mean benchmark_target_qps?"


def test_what_the_playbooks_read_is_known() -> None:
    files = [*CHECKOUT.glob("playbooks/**/*.yml"), *CHECKOUT.glob("plugins/action/*.py")]
    files += [CHECKOUT / "docs/settings.md", CHECKOUT / "inventory/hosts.example.yml"]
    text = "\n".join(path.read_text() for path in files)
    given = {*re.findall(r"-e ([a-z]\w*)=", text)} - {"name"}
    given |= {*re.findall(r"\{\{ ((?:reset|clean|submission)_\w+)", text)}
    assert len(given) > 10
    assert given <= KNOWN, given - KNOWN
    for name in OF_PLAYBOOKS:
        # <what>_other_users, <what>_confirm
        assert name in text or f"}}_{name.partition('_')[2]}" in text, name


def test_files_of_a_group_or_host_that_is_not_there(tmp_path: Path) -> None:
    for name in ("group_vars/gpu_node.yml", "group_vars/all.yml", "group_vars/gpu_nodes/a.yml", "host_vars/jw2.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "host_vars/README.md").write_text("")
    (tmp_path / "host_vars/jw22.yaml").write_text("")
    found = files_of_nobody([str(tmp_path / "hosts.yml"), "jw9,"], ["all", "gpu_nodes"], ["jw2", "jw3"])
    assert [line.removeprefix(f"{tmp_path}/") for line in found] == [
        "group_vars/gpu_node.yml has no effect: the inventory has no group gpu_node: did you mean gpu_nodes?",
        "host_vars/jw22.yaml has no effect: the inventory has no host jw22: did you mean jw2?",
    ]
