# SPDX-License-Identifier: Apache-2.0
"""A tokenizer made from texts: byte-level byte pairs (Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019).

Every byte is in the vocabulary, so there is no unknown token. The order of the texts changes nothing. Special tokens,
first in the vocabulary, are those that the model's kind needs:

    causal          <|endoftext|>, which begins and ends texts, and <|padding|>
    masked          [PAD] [UNK] [CLS] [SEP] [MASK], texts as [CLS] a [SEP] b [SEP]
    masked, and     <s> <pad> </s> <unk> <mask>, texts as <s> a </s></s> b </s>; positions count from behind <pad>'s
    RoBERTa's kin   number, so it must be 1
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cloister_workers.trainer.model import like_roberta, load_tokenizer


@dataclass(frozen=True)
class Specials:
    """The special tokens of a model's kind, in order of their numbers."""

    names: tuple[str, ...]
    roles: dict[str, str] = field(default_factory=dict)
    """transformers' name of a role, such as cls_token, to the token."""
    single: str = ""
    """What stands around one text; empty: nothing."""
    pair: str = ""


CAUSAL = Specials(
    ("<|endoftext|>", "<|padding|>"),
    {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|padding|>"},
)
BERT = Specials(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "[CLS] $A [SEP]",
    "[CLS] $A [SEP] $B:1 [SEP]:1",
)
ROBERTA_SPECIALS = Specials(
    ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    },
    "<s> $A </s>",
    "<s> $A </s> </s> $B </s>",
)


def specials_of(config: Any, *, masked: bool) -> Specials:  # noqa: ANN401 - transformers' own type is dynamic
    """The special tokens that this model needs."""
    if not masked:
        return CAUSAL
    return ROBERTA_SPECIALS if like_roberta(config) else BERT


def train_tokenizer(texts: Iterable[str], size: int, specials: Specials) -> Any:  # noqa: ANN401
    """A fast tokenizer of at most `size` tokens, fewer where the texts have no further pair that repeats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(specials.names),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if specials.single:
        numbered = [(name, number) for number, name in enumerate(specials.names)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=specials.single, pair=specials.pair, special_tokens=numbered
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, padding_side="right", **specials.roles
    )


def as_loaded(tokenizer: Any, config: Any) -> Any:  # noqa: ANN401
    """The tokenizer as transformers will load it from a folder of this model.

    For some kinds (Qwen2) that is a class of their own, which cuts words its own way, so the model must learn from it.
    """
    with tempfile.TemporaryDirectory() as directory:
        config.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return load_tokenizer(directory)


def fit_config(config: Any, tokenizer: Any) -> None:  # noqa: ANN401
    """Give the configuration the tokenizer's vocabulary size and special tokens."""
    config.vocab_size = len(tokenizer)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
        if hasattr(config, name):
            setattr(config, name, getattr(tokenizer, name))
