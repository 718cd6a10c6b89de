# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of the families that models.md names, each with a tokenizer of the words of `tiny_models`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import WORDS, write_tokenizer

PACKED, PADDED = "cloister_packed", "eager"
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_OPT = {"word_embed_proj_dim": 32, "ffn_dim": 48}
_T5 = {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0}
_BART = {
    "d_model": 48,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "max_position_embeddings": 64,
    "forced_eos_token_id": None,
    "decoder_start_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


@dataclass(frozen=True)
class Family:
    """What transformers calls it, how large the tiny one is, and how it runs."""

    attention: str
    """Of a causal model once it is loaded; empty for encoder-decoders, which are padded."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Instead of, or beside, those of most decoders."""
    plain: bool = True
    """Whether it takes the sizes of most decoders."""
    targets: tuple[str, ...] = ("all-linear",)
    """Where its adapter is; peft warns of experts that are one stacked weight."""


CAUSAL = {
    "llama": Family(PACKED),
    "qwen2": Family(PACKED),
    "qwen3": Family(PACKED),
    "mistral": Family(PACKED, {"sliding_window": 8}),
    "gemma": Family(PACKED),
    "gpt2": Family(PACKED, _GPT2, plain=False),
    "gemma2": Family(PADDED, {"sliding_window": 8}),
    "gemma3_text": Family(PACKED, {"sliding_window": 8}),
    "phi3": Family(PACKED),
    "olmo2": Family(PACKED),
    "smollm3": Family(PACKED),
    "gpt_neox": Family(PACKED),
    "opt": Family(PACKED, _OPT),
    "qwen3_moe": Family(PACKED, _EXPERTS, targets=("q_proj", "v_proj")),
    "mixtral": Family(PACKED, _EXPERTS, targets=("q_proj", "v_proj")),
    "granite": Family(PADDED, {"logits_scaling": 4.0}),
    "cohere": Family(PADDED),
    "gpt_oss": Family(PADDED, {**_EXPERTS, "sliding_window": 8}),
}
ENCODER_DECODERS = {
    "t5": Family("", _T5, plain=False),
    "mt5": Family("", _T5, plain=False),
    "bart": Family("", _BART, plain=False),
    "marian": Family("", {**_BART, "decoder_start_token_id": 0}, plain=False),
    "pegasus": Family("", {**_BART, "decoder_start_token_id": 0}, plain=False),
}
_DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}


def write_family(name: str, directory: Path) -> Path:
    """A model of the family with random weights, and its tokenizer."""
    import torch
    import transformers

    # Qwen2's tokenizer is rebuilt from byte pairs whatever the folder's file holds.
    size = write_byte_pairs(directory) if name == "qwen2" else write_tokenizer(directory)
    family = {**CAUSAL, **ENCODER_DECODERS}[name]
    sizes = {**(_DECODER if family.plain else {}), **family.sizes, "vocab_size": size}
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    config = transformers.AutoConfig.for_model(name, **sizes, **tokens)
    kind = transformers.AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else transformers.AutoModelForCausalLM
    torch.manual_seed(7)
    kind.from_config(config).save_pretrained(directory)
    return directory


def write_byte_pairs(directory: Path) -> int:
    """A byte-level tokenizer of the words; returns the size of its vocabulary."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    pairs = [f"{a} {b}" for a in WORDS for b in WORDS]
    made.train_from_iterator(pairs, 400, special_tokens=["[PAD]", "[UNK]", "[EOS]"])
    fast = PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, pad_token="[PAD]", eos_token="[EOS]")
    fast.save_pretrained(directory)
    return len(fast)
