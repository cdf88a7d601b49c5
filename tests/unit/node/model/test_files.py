"""A model whose files are damaged is refused by the file's name, and never loaded in part."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import SetupError
from benchmark.node.model.files import check_files
from benchmark.node.model.load import load_model
from benchmark.node.model.tiny import make_tiny_model
from benchmark.resolve import resolve


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "whole"
    make_tiny_model(directory)
    return directory


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def test_a_whole_model_has_so_many_parameters(whole: Path) -> None:
    assert check_files(whole) == 139_584


def test_weights_of_another_format_beside_them_are_not_counted(model: Path) -> None:
    """Mistral's models lie twice in their repository."""
    shutil.copy(model / "model.safetensors", model / "consolidated.safetensors")
    assert check_files(model) == 139_584


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.safetensors"])
def test_weights_of_another_format_alone_are_refused(name: str, model: Path) -> None:
    (model / "model.safetensors").rename(model / name)
    with pytest.raises(SetupError, match=r"holds no model.safetensors; other formats are not loaded: convert them"):
        check_files(model)


@pytest.mark.parametrize("end", ["2", [2, "7"], {}, 2.5, True])
def test_an_end_that_is_no_token_is_named(end: Any, model: Path) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    with pytest.raises(SetupError, match=r"generation_config.json is damaged \(its eos_token_id is neither a token"):
        check_files(model)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    path.unlink()


def dangle(path: Path) -> None:
    """Leave a link to a blob that is gone, as in a cache that was tidied by hand."""
    path.unlink()
    path.symlink_to("../../blobs/gone")


def empty(path: Path) -> None:
    path.write_text("[]")


def garble(path: Path) -> None:
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


@pytest.mark.parametrize(
    ("name", "harm", "how"),
    [
        *(
            (name, harm, "is damaged (")
            for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
            for harm in (cut, garble, empty)
        ),
        *((name, harm, "is missing.") for name in ("config.json", "tokenizer.json") for harm in (remove, dangle)),
        ("model.safetensors", cut, "is damaged ("),
        ("model.safetensors", garble, "is damaged ("),
        ("model.safetensors", dangle, "is missing."),
    ],
)
def test_the_damaged_file_is_named_with_what_to_do(
    model: Path, name: str, harm: Callable[[Path], None], how: str
) -> None:
    harm(model / name)
    with pytest.raises(SetupError) as caught:
        check_files(model)
    assert str(caught.value).startswith(f"{model / name} {how}")
    assert "Provision it again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_damaged_in_a_cache_is_looked_at_again(model: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (model / "config.json").replace(blob)
    (model / "config.json").symlink_to(blob)
    garble(blob)
    os.utime(blob, ns=(1, 1))  # as it was when it was verified
    with pytest.raises(SetupError, match="is damaged"):
        check_files(model)
    assert blob.stat().st_mtime_ns != 1


def test_a_config_of_something_else_is_named(model: Path) -> None:
    (model / "config.json").write_text("{}")
    with pytest.raises(SetupError, match=r"config.json is damaged \(it has no model_type\)"):
        check_files(model)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}},
            "model-00002.safetensors is missing",
        ),
        ({"weight_map": ["model.safetensors"]}, r"index.json is damaged \(it has no weight_map\)"),
        ({}, r"index.json is damaged \(it has no weight_map\)"),
    ],
)
def test_every_file_of_weights_in_the_index_has_to_be_there(model: Path, index: dict[str, Any], said: str) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SetupError, match=said):
        check_files(model)


@given(size=st.integers(0, 559_000), name=st.sampled_from(["model.safetensors", "tokenizer.json", "config.json"]))
def test_wherever_a_file_is_cut_off_it_is_noticed(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, size: int, name: str
) -> None:
    model = shutil.copytree(whole, tmp_path_factory.mktemp("cut") / "model")
    content = (model / name).read_bytes()
    (model / name).write_bytes(content[: size % len(content)])
    with pytest.raises(SetupError, match=name):
        check_files(model)


def test_weights_that_are_not_in_the_files_are_never_made_up(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SetupError, match=r"1 are missing \(model.layers.1.mlp.down_proj.weight\). Provision it again"):
        load(model)


def test_weights_of_another_shape_are_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 256}))
    with pytest.raises(SetupError, match=r"6 have a different shape from config.json \(model.layers.0.mlp"):
        load(model)


def test_weights_that_are_shared_need_not_be_there_twice(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    load(model)


def load(model: Path) -> None:
    given = {"benchmark_profile": "quick", "benchmark_device": "cpu", "benchmark_dtype": "float32"}
    load_model(resolve({**given, "benchmark_model": str(model)}).settings)
