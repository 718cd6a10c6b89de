# SPDX-License-Identifier: Apache-2.0
"""A tiny llama that has learnt one thing, to answer with the answer word that stands before the question; and an
encoder for the same words.

Entities e0, e1... are what questions are about, answer words a0, a1... what is said of them. Without an answer word
before the question there is nothing to go by, so passages and demonstrations help, and nothing else does.
"""

from __future__ import annotations

import random
from pathlib import Path

ENTITIES = [f"e{number}" for number in range(40)]
ANSWERS = [f"a{number}" for number in range(16)]
_FIXED = ["[PAD]", "[UNK]", "[EOS]", "[CLS]", "[SEP]", "colour", "of", "is", "the", "Answer", ":", "?", "[", "]"]
_FIXED += [*"123456789", "user", "assistant", "system", "noise"]
VOCABULARY = [*_FIXED, *ENTITIES, *ANSWERS]


def question(entity: str) -> str:
    """How a question is asked."""
    return f"colour of {entity} ?"


def write_tokenizer(directory: Path) -> None:
    """One word a token, with padding and end-of-text tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {name: index for index, name in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    ).save_pretrained(directory)


def write_copier(directory: Path, steps: int = 160) -> Path:
    """The llama, taught on made-up prompts of both forms."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    write_tokenizer(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(7)
    model = LlamaForCausalLM(config)
    draw = random.Random(11)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        pairs = [_lesson(draw) for _ in range(32)]
        rows = [tokenizer(prompt + answer)["input_ids"] + [2] for prompt, answer in pairs]
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        labels = torch.full_like(ids, -100)
        for number, row in enumerate(rows):
            labels[number, len(row) - 2 : len(row)] = ids[number, len(row) - 2 : len(row)]
        mask = (ids != 0).long()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(directory)
    return directory


def _lesson(draw: random.Random) -> tuple[str, str]:
    """A prompt and what to answer: passages or demonstrations, all with one answer word, then a question."""
    answer, entity = draw.choice(ANSWERS), draw.choice(ENTITIES)
    count = draw.randint(1, 3)
    if draw.random() < 0.5:
        before = [f"[{n}] {draw.choice(ENTITIES)} is the colour {answer}" for n in range(1, count + 1)]
    else:
        before = [f"{question(draw.choice(ENTITIES))}\nAnswer: {answer}" for _ in range(count)]
    return "\n".join([*before, f"{question(entity)}\nAnswer:"]), f" {answer}"


def write_word_encoder(directory: Path, seed: int = 3) -> Path:
    """A bare encoder of random words: texts that share rare words lie near one another."""
    import torch
    from transformers import BertConfig, BertModel

    write_tokenizer(directory)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = BertModel(config)
    with torch.no_grad():
        words = model.embeddings.word_embeddings.weight
        words.mul_(50)  # a word counts more than its place
        words[: len(_FIXED)] = words[0]  # common words are all the same
    model.save_pretrained(directory)
    return directory
