# SPDX-License-Identifier: Apache-2.0
"""Made-up rows and a random model of the usual architecture, the same for every contender."""

from __future__ import annotations

import json
import random
from pathlib import Path

TASKS = ("sft", "classification", "dpo")
LENGTHS = ("mixed", "equal")
BATCH = 16
MAX_LENGTH = 512
MEAN = 60  # words of a row
WORDS = [f"word{number}" for number in range(8000)]
SEED = 11
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
"""(hidden, layers, heads, intermediate) by device."""
SIZES = {"cpu": (192, 4, 4, 512), "cuda": (2048, 16, 32, 8192)}


def write_material(task: str, lengths: str, folder: Path, steps: int) -> str:
    """Rows for `steps` steps and a model with its tokenizer, into `folder`; returns a line about them."""
    rows = make_rows(task, lengths, steps * BATCH)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    sizes = sorted(sum(len(str(value).split()) for value in row.values()) for row in rows)
    write_model(folder / "model", task)
    middle, longest = sizes[len(sizes) // 2], sizes[-1]
    return f"{len(rows)} rows of {sum(sizes) / len(sizes):.0f} words on average, median {middle}, longest {longest}"


def make_rows(task: str, lengths: str, count: int) -> list[dict[str, str]]:
    """Rows of made-up words; mixed lengths are lognormal, as those of real texts are."""
    draw = random.Random(SEED)  # noqa: S311 - seeded data

    def text(mean: float) -> str:
        size = mean if lengths == "equal" else min(4 * mean, max(3, draw.lognormvariate(0, 0.8) * 0.72 * mean))
        return " ".join(draw.choices(WORDS, k=round(size)))

    if task == "classification":
        return [{"text": text(MEAN), "label": f"label-{draw.randrange(4)}"} for _ in range(count)]
    if task == "sft":
        return [{"prompt": text(MEAN / 2), "completion": " " + text(MEAN / 2)} for _ in range(count)]
    third = MEAN / 3
    return [{"prompt": text(third), "chosen": " " + text(third), "rejected": " " + text(third)} for _ in range(count)]


def write_model(folder: Path, task: str) -> None:
    """A random llama, or for classification a random bert, of a size for the device, and a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[EOS]", *WORDS]
    words = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    ).save_pretrained(folder)
    hidden, layers, heads, inner = SIZES["cuda" if torch.cuda.is_available() else "cpu"]
    shared = {
        "vocab_size": len(names),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": 2 * MAX_LENGTH,
        "pad_token_id": 0,
    }
    torch.manual_seed(SEED)
    if task == "classification":
        BertModel(BertConfig(**shared)).save_pretrained(folder)
    else:
        LlamaForCausalLM(LlamaConfig(**shared, eos_token_id=2, bos_token_id=None)).save_pretrained(folder)
