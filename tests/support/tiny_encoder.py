# SPDX-License-Identifier: Apache-2.0
"""A tiny sentence encoder with a planted association, and the word list that shows it.

Words m0.. and f0.. stand for two groups, a0.. and b0.. for what prejudice ties to them, n0.. for nothing. In the
encoder's word vectors the groups lie at both ends of one direction, and the attributes a little to its sides.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloister_workers.trainer.debias.lexicon import Association, Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part

PAIRS, ATTRIBUTES, NEUTRAL = 30, 12, 60
FRAMES = ("here", "there", "now", "then", "word", "is", "the")
_KINDS = (("m", PAIRS), ("f", PAIRS), ("a", ATTRIBUTES), ("b", ATTRIBUTES), ("n", NEUTRAL))
NAMES = [f"{letter}{number}" for letter, count in _KINDS for number in range(count)]


def write_encoder(directory: Path, *, hidden: int = 32, dropout: float = 0.0) -> Path:
    """The encoder in the layout of sentence-transformers: transformer, mean pooling, unit length."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FRAMES, *NAMES]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=hidden,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    torch.manual_seed(3)
    model = BertModel(config)
    table = model.embeddings.word_embeddings.weight
    side = torch.nn.functional.normalize(torch.randn(hidden), dim=0)
    with torch.no_grad():
        table.copy_(torch.randn_like(table) * 0.4)
        for number in range(PAIRS):
            table[words.index(f"f{number}")] = table[words.index(f"m{number}")] - 2 * side
            table[words.index(f"m{number}")] += 2 * side
        for number in range(ATTRIBUTES):
            table[words.index(f"a{number}")] += 0.7 * side
            table[words.index(f"b{number}")] -= 0.7 * side
    model.save_pretrained(directory)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling/config.json").write_text(
        json.dumps({"embedding_dimension": hidden, "pooling_mode": "mean"})
    )
    return directory


def planted_lexicon(pairs: range = range(PAIRS), attributes: range = range(ATTRIBUTES)) -> Lexicon:
    """The word list of these pairs and attributes; the pairs that are left out belong to other parts."""
    return Lexicon(
        axis="gender",
        language="en",
        groups=("male", "female"),
        swaps=tuple(_set(number) for number in pairs),
        associations=(Association("planted", tuple(f"a{n}" for n in attributes), tuple(f"b{n}" for n in attributes)),),
        templates=("Here is {word}.", "There is the {word}.", "Now {word}.", "{word} is the word then."),
        pair_templates=("Here is {person} now {attribute}.", "{person} is the {attribute} then."),
        neutral=tuple(f"Here is n{n} then n{(7 * n + 1) % NEUTRAL} there." for n in range(NEUTRAL)),
        held_out=tuple(_set(number) for number in range(PAIRS) if number not in pairs),
    )


def planted_part(
    pairs: range = range(PAIRS), attributes: range = range(ATTRIBUTES), rows: tuple[Any, ...] = ()
) -> Part:
    """A part with this share of the word list."""
    return Part(Material.from_rows(rows), {"gender": planted_lexicon(pairs, attributes)})


def _set(number: int) -> SwapSet:
    return SwapSet((f"m{number}", f"f{number}"), person="the {}")
