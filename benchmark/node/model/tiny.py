"""Make a tiny Llama-architecture model with a real tokenizer: for trying the benchmark, not for useful answers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmark.errors import InputError, SetupError
from benchmark.importing import missing_package
from benchmark.node.datasets import curated

SEED = 20240723
VOCABULARY = 512

# The header format of Llama 3's own template, without tools and date.
CHAT_TEMPLATE = (
    "{{- '<|begin_of_text|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
SPECIAL_TOKENS = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]


def make_tiny_model(directory: Path) -> None:
    """Write model and tokenizer to a new directory, atomically; the same seed gives the same files.

    Raises InputError if the directory exists, SetupError if a package is missing.
    """
    if directory.exists():
        raise InputError(f"{directory} exists: remove it first, or use it.")
    try:
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        from transformers.utils import logging
    except ImportError as error:
        raise SetupError(missing_package(error.name)) from None
    logging.disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prompt.text for prompt in curated.prompts()], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[1],
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=wrapped.bos_token_id,
            eos_token_id=wrapped.eos_token_id,
        )
    )
    beside = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    wrapped.save_pretrained(beside)
    model.save_pretrained(beside)
    # safetensors makes files that only their owner can read, whatever the umask.
    mask = os.umask(0)
    os.umask(mask)
    for path in beside.iterdir():
        path.chmod(0o666 & ~mask)
    beside.rename(directory)
