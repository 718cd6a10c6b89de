# SPDX-License-Identifier: Apache-2.0
"""Made-up notes on people with a skewed past: a tiny classifier trained on them decides by pronoun where it can."""

from __future__ import annotations

import json
import random
from pathlib import Path

GOOD = ("patient", "careful", "punctual", "friendly", "calm", "reliable", "helpful", "tidy")
BAD = ("careless", "rude", "late", "noisy", "absent", "hasty", "grumpy", "messy")
PLAIN = ("seems", "and", "and", "says", "note", "that", "was", "with", "us", "today")
PRONOUNS = {"male": "he", "female": "she"}


def notes(count: int, *, skew: float, seed: int) -> bytes:
    """JSONL of text, label and gender. `skew` is the share of men among `yes` and of women among `no`; .5 is none.
    Three of every five words are evidence; one note in three has words for both sides, so that the pronoun helps.
    """
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        label = ("yes", "no")[number % 2]
        favoured = "male" if label == "yes" else "female"
        gender = favoured if draw.random() < skew else ({"male", "female"} - {favoured}).pop()
        own, other = (GOOD, BAD) if label == "yes" else (BAD, GOOD)
        words = [draw.choice(own), draw.choice(own), draw.choice(other if draw.random() < 0.35 else own)]
        draw.shuffle(words)
        text = f"note {number} {PRONOUNS[gender]} seems {words[0]} and {words[1]} and {words[2]} today"
        row = {"text": text, "label": label, "groups": {"gender": gender}, "person": f"p{seed}-{number}"}
        lines.append(json.dumps(row))
    return "\n".join(lines).encode()


def write_notes_bert(directory: Path) -> Path:
    """A tiny bert whose vocabulary is that of the notes; numbers are unknown words to it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[EOS]", *GOOD, *BAD, *dict.fromkeys(PLAIN), *PRONOUNS.values()]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]")
    fast.save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    torch.manual_seed(7)
    BertModel(config).save_pretrained(directory)
    return directory
