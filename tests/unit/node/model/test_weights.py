"""Weights that are read in pieces are those that are in the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmark.node.model import weights
from benchmark.node.model.load import load_model
from benchmark.node.model.tiny import make_tiny_model
from benchmark.settings import Settings
from benchmarks.shapes import TINY


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model in several files, with tied embeddings."""
    directory = tmp_path_factory.mktemp("sharded")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**TINY, tie_word_embeddings=True)).to(torch.bfloat16)
    model.save_pretrained(directory, max_shard_size="100KB")
    assert len(list(directory.glob("*.safetensors"))) >= 3
    return directory


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_model_in_several_files_is_read_whole(
    sharded: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 1000)  # so that tensors are many pieces, the last one shorter
    plain = AutoModelForCausalLM.from_pretrained(sharded, dtype=dtype)
    with weights.reading("cpu") as reader:
        model = AutoModelForCausalLM.from_pretrained(sharded, dtype=dtype, device_map={"": "cpu"})
    state = model.state_dict()
    assert state.keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert state[name].dtype == dtype
        assert torch.equal(state[name], tensor), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    # All went through the reader, and nothing twice: in the files there are two bytes a weight.
    assert reader.bytes == 2 * sum(parameter.numel() for parameter in model.parameters())
    assert all(seconds >= 0 for seconds in reader.seconds())


def test_outside_the_block_transformers_reads_as_ever(sharded: Path) -> None:
    from safetensors import safe_open
    from transformers import modeling_utils

    with pytest.raises(OSError, match="no-model"), weights.reading("cpu"):
        AutoModelForCausalLM.from_pretrained("/no-model")
    assert modeling_utils.safe_open is safe_open


def test_a_file_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"12345")
    reader = weights.Reader("cpu", readers=1)
    with path.open("rb") as file:
        assert bytes(reader.read(file.fileno(), 1, 4)) == b"2345"
        with pytest.raises(OSError, match="ends before its last tensor"):
            reader.read(file.fileno(), 1, 5)
    reader.close()


def test_the_start_tells_disk_device_and_the_rest_apart(tmp_path: Path) -> None:
    directory = tmp_path / "tiny"
    make_tiny_model(directory)
    settings = Settings(benchmark_model=str(directory), benchmark_device="cpu", benchmark_dtype="float32")
    startup = load_model(settings, readers=2).details["startup_s"]
    assert isinstance(startup, dict)
    assert list(startup) == ["imports", "tokenizer", "weights_from_disk", "device_transfer", "model"]
    assert startup["device_transfer"] == 0  # the CPU has them where they were read
    startup = load_model(settings).details["startup_s"]
    assert isinstance(startup, dict)
    assert list(startup) == ["imports", "tokenizer", "weights"]
