# SPDX-License-Identifier: Apache-2.0
"""Uses a pulled classifier with plain peft and transformers: no Cloister code."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def main() -> None:
    """Print the label of each text: classify BASE_DIRECTORY ADAPTER_DIRECTORY TEXT..."""
    warnings.simplefilter("ignore", FutureWarning)  # transformers to peft, about their own names
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    base, adapter, *texts = sys.argv[1:]
    labels = {int(k): v for k, v in json.loads((Path(adapter) / "config.json").read_text())["id2label"].items()}
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels), use_safetensors=True)
    model = PeftModel.from_pretrained(model, adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    for text, choice in zip(texts, logits.argmax(-1).tolist(), strict=True):
        print(f"  {labels[choice]:<16} {text}")


if __name__ == "__main__":
    main()
