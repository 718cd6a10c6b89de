# SPDX-License-Identifier: Apache-2.0
"""Tiny random encoder-decoders, and a language to translate."""

from __future__ import annotations

import json
import random
from pathlib import Path

FROM = [f"f{number}" for number in range(10)]
TO = [f"t{number}" for number in range(10)]
"""Word n of one language is word n of the other."""


def write_words(directory: Path) -> int:
    """One word a token; sequences end with the end-of-text token, as T5's and BART's do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<unk>", "<s>", *FROM, *TO]
    words = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    ).save_pretrained(directory)
    return len(names)


def write_t5(directory: Path) -> Path:
    """A T5 of one layer a side."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 1, "num_heads": 4}
    config = T5Config(
        vocab_size=write_words(directory), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **sizes
    )
    torch.manual_seed(7)
    T5ForConditionalGeneration(config).save_pretrained(directory)
    return directory


def write_bart(directory: Path) -> Path:
    """A BART of one layer a side."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=write_words(directory),
        d_model=48,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=3,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    torch.manual_seed(7)
    BartForConditionalGeneration(config).save_pretrained(directory)
    return directory


def translation_rows(count: int, seed: int, most: int = 3) -> bytes:
    """Word-by-word translations of up to `most` words."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.randrange(len(FROM)) for _ in range(draw.randint(1, most))]
        rows.append({"source": " ".join(FROM[n] for n in words), "target": " ".join(TO[n] for n in words)})
    return "\n".join(map(json.dumps, rows)).encode()


def summary_rows(count: int, seed: int) -> bytes:
    """Texts of which the first word, translated, is the summary."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.randrange(len(FROM)) for _ in range(draw.randint(3, 6))]
        rows.append({"source": " ".join(FROM[n] for n in words), "target": TO[words[0]]})
    return "\n".join(map(json.dumps, rows)).encode()
