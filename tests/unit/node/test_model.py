"""What a model needs of a GPU's memory, known before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.errors import SetupError
from benchmark.node import model

LLAMA_8B = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}


def test_the_cache_of_llama_8b_takes_128_kib_per_token(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    assert model.cache_bytes_per_token(tmp_path, "float16") == 128 * 1024
    assert model.cache_bytes_per_token(tmp_path, "float32") == 256 * 1024
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, "head_dim": 64, "num_key_value_heads": None}))
    assert model.cache_bytes_per_token(tmp_path, "float16") == 2 * 32 * 32 * 64 * 2


def test_a_config_that_describes_no_model_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SetupError, match="does not describe a model"):
        model.cache_bytes_per_token(tmp_path, "float16")


def test_what_cannot_fit_is_refused_with_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (24 * 10**9, 25 * 10**9))
    model._check_memory(16 * 10**9, 5 * 10**9, "float16")
    with pytest.raises(
        SetupError, match=r"26.1 GB \(16.0 GB of weights in float16 and 8.0 GB of KV cache among them\)"
    ):
        model._check_memory(16 * 10**9, 8 * 10**9, "float16")
    with pytest.raises(SetupError, match=r"24.0 GB free of 25.0: .* a smaller model\.$"):
        model._check_memory(23 * 10**9, 0, "float16")
