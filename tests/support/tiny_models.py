# SPDX-License-Identifier: Apache-2.0
"""Tiny random models and tokenizers, written to a directory as an import would leave them."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]
WORDS += ["user", "assistant", "system", ":"]


def write_tokenizer(directory: Path) -> int:
    """A word-level fast tokenizer with pad, eos, cls and sep tokens; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[EOS]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]")
    fast.save_pretrained(directory)
    return len(names)


def write_bert(directory: Path, dropout: float = 0.1) -> Path:
    """A bert encoder of two layers, as a masked-model checkpoint without a classification head."""
    import torch
    from transformers import BertConfig, BertModel

    size = write_tokenizer(directory)
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    torch.manual_seed(7)
    BertModel(config).save_pretrained(directory)
    return directory


def write_llama(directory: Path) -> Path:
    """A llama of two layers with grouped key and value heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = write_tokenizer(directory)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(7)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def classification_rows(count: int) -> bytes:
    """JSONL of `text` and `label`; the label is the first word of the text, three labels in all."""
    lines = []
    for number in range(count):
        first = WORDS[number % 3]
        rest = [WORDS[(number * step + step) % 10] for step in range(1, 2 + number % 7)]
        lines.append(json.dumps({"text": " ".join([first, *rest, WORDS[number // 3 % 10]]), "label": first}))
    return "\n".join(lines).encode()


def chat_rows(count: int) -> bytes:
    """JSONL of `messages` (even rows) and of `prompt` and `completion` (odd rows), of various lengths."""
    lines = []
    for number in range(count):
        prompt = " ".join(WORDS[(number * step + 1) % 10] for step in range(1, 3 + number % 5))
        answer = " ".join(WORDS[(number + step) % 10] for step in range(1 + number % 4))
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        lines.append(
            json.dumps({"messages": chat} if number % 2 == 0 else {"prompt": prompt, "completion": " " + answer})
        )
    return "\n".join(lines).encode()
