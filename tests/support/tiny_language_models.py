# SPDX-License-Identifier: Apache-2.0
"""Tiny random language models with tokenizers of several habits, in memory, made from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def byte_pairs(texts: Sequence[str], *, beginning: bool = False, size: int = 330) -> Any:  # noqa: ANN401
    """A fast byte-level BPE tokenizer trained on `texts`, words marked by their leading space, as GPT-2's. Its one
    special token begins and ends texts, and none is put around them; with `beginning` a token of its own is put
    before each text, as Llama's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|end|>", *(["<|begin|>"] if beginning else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = (
        processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
        if beginning
        else processors.ByteLevel(trim_offsets=True)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", bos_token=names[-1])


def whole_words(words: Sequence[str], *, masked: bool) -> Any:  # noqa: ANN401
    """A fast word-level tokenizer; a masked one has [MASK] and puts [CLS] and [SEP] around texts, the other one has
    padding alone and puts nothing anywhere.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", *(["[CLS]", "[SEP]", "[MASK]"] if masked else []), *dict.fromkeys(words)]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if masked:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def gpt2(tokenizer: Any, seed: int = 7, positions: int = 64) -> Any:  # noqa: ANN401
    """A causal model of two layers with learned positions and dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    return GPT2LMHeadModel(config)


def llama(tokenizer: Any, seed: int = 7) -> Any:  # noqa: ANN401
    """A causal model of two layers with rotary positions and grouped heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def bert(tokenizer: Any, seed: int = 7) -> Any:  # noqa: ANN401
    """A masked model of two layers with dropout."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return BertForMaskedLM(config)
