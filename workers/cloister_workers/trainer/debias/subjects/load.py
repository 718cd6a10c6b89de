# SPDX-License-Identifier: Apache-2.0
"""A subject from folders: the base model's, and on it the files of an adapted version where there is one.

A version is a peft adapter (`adapter_config.json`), which goes onto the base model, or a whole folder (merged or
erased weights), which stands in its place. Local files alone, safetensors alone, no code from the folder. Weights are
float32; those of a causal model on a GPU are bfloat16. A tensor that is missing and would be filled with random
numbers is refused.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.subjects import Subject
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.debias.subjects.pretrained import invalid, pretrained, read_json, refusing, settle
from cloister_workers.trainer.model import load_tokenizer

ADAPTER_CONFIG = "adapter_config.json"
_TOKENIZER = "tokenizer.json"


def load_subject(  # noqa: PLR0913 - where from, where to, and how
    kind: ModelKind,
    model_dir: str,
    layer: Mapping[str, bytes] | None,
    scratch: str,
    device: torch.device,
    poll: Callable[[], None],
    *,
    max_seq_length: int = 128,
    batch_size: int = 32,
    trainable: bool = False,
) -> Subject:
    """The subject of this kind, in evaluation mode.

    `layer` holds the files of an adapted version; it is unpacked under `scratch` and gone again when this returns.
    `trainable` leaves an adapter's weights open to training; without an adapter it changes nothing.
    Raises TrainerError MODEL_INVALID where folder or layer do not load as this kind.
    """
    common: dict[str, Any] = {
        "device": device,
        "poll": poll,
        "max_seq_length": max_seq_length,
        "batch_size": batch_size,
    }
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        try:
            top = write_folder(layer, directory) if layer is not None else Path(model_dir)
        except ValueError as error:
            raise invalid("its version has a file that no model folder holds") from error
        adapter = top if (top / ADAPTER_CONFIG).is_file() else None
        base = Path(model_dir) if adapter else top
        if kind is ModelKind.ENCODER:
            return _encoder(base, adapter, trainable, common)
        tokenizer = load_tokenizer(str(top if (top / _TOKENIZER).is_file() else base), padded=True)
        if kind is ModelKind.CLASSIFIER:
            model = _classifier(base, adapter, int(tokenizer.pad_token_id))
        else:
            model = _language_model(kind, base, device)
        if adapter is not None:
            model = _adapted(model, adapter, trainable)
        return _subject(kind, model.to(device).eval(), {"tokenizer": tokenizer, **common})


def weights_digest(subject: Subject) -> str:
    """SHA-256, in hexadecimal, over every parameter and buffer with its name, adapters included.

    Two subjects of one structure have one digest only where every tensor is equal to the bit; so a digest that a
    mitigation leaves as it was shows that nothing was changed. It is not the digest of any file.
    """
    state = hashlib.sha256()
    tensors = [*subject.model.named_parameters(), *subject.model.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda entry: entry[0]):
        value = tensor.detach().cpu().contiguous()
        state.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        state.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return state.hexdigest()


# ---------------------------------------------------------------- kinds
def _encoder(base: Path, adapter: Path | None, trainable: bool, common: dict[str, Any]) -> Subject:  # noqa: FBT001
    from cloister_workers.trainer.debias.subjects.encoder import EncoderSubject
    from cloister_workers.trainer.debias.subjects.pipeline import read_pipeline

    model, tokenizer = read_pipeline(base)
    if adapter is not None:
        model.transformer = _adapted(model.transformer, adapter, trainable)
    return EncoderSubject(model=model.to(common["device"]).eval(), tokenizer=tokenizer, **common)


def _classifier(base: Path, adapter: Path | None, pad: int) -> Any:  # noqa: ANN401
    """A classifier whose head was trained: with the folder's weights, or as part of the adapter."""
    settings: dict[str, Any] = {}
    saved: set[str] = set()
    if adapter is not None:
        names = _labels(adapter)
        saved = {str(name) for name in read_json(adapter / ADAPTER_CONFIG).get("modules_to_save") or ()}
        settings = {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "ignore_mismatched_sizes": True,
        }
    model, report = pretrained(
        transformers.AutoModelForSequenceClassification, base, torch.float32, attn_implementation="sdpa", **settings
    )
    lacking = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    if any(not saved & set(key.split(".")) for key in lacking):
        raise invalid("it has no trained classification head; train a classifier first")
    settle(model, lacking)
    model.config.pad_token_id = pad
    return model


def _language_model(kind: ModelKind, base: Path, device: torch.device) -> Any:  # noqa: ANN401
    masked = kind is ModelKind.MASKED
    auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    dtype = torch.bfloat16 if device.type == "cuda" and not masked else torch.float32
    model, report = pretrained(auto, base, dtype, attn_implementation="sdpa")
    if report["missing_keys"] or report["mismatched_keys"]:
        raise invalid("its weights lack tensors of the architecture in config.json")
    return model


def _subject(kind: ModelKind, model: Any, common: dict[str, Any]) -> Subject:  # noqa: ANN401
    """Imported late: one kind of job does not need the code of the others."""
    if kind is ModelKind.CLASSIFIER:
        from cloister_workers.trainer.debias.subjects.classifier import ClassifierSubject

        names = model.config.id2label
        return ClassifierSubject(model=model, labels=tuple(str(names[index]) for index in sorted(names)), **common)
    if kind is ModelKind.CAUSAL:
        from cloister_workers.trainer.debias.subjects.causal import CausalSubject

        causal: Subject = CausalSubject(model=model, **common)
        return causal
    from cloister_workers.trainer.debias.subjects.masked import MaskedSubject

    masked: Subject = MaskedSubject(model=model, **common)
    return masked


# ---------------------------------------------------------------- adapters
def _adapted(base: Any, adapter: Path, trainable: bool) -> Any:  # noqa: ANN401, FBT001
    """`base` with the adapter on it; every tensor that the adapter's configuration asks for must be there."""
    import peft

    with refusing("its adapter does not fit the base model"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(
            base, str(adapter), is_trainable=trainable, autocast_adapter_dtype=False, local_files_only=True
        )
    if any("missing adapter keys" in str(entry.message) for entry in told):
        raise invalid("its adapter lacks tensors that its configuration names")
    return model


def _labels(adapter: Path) -> tuple[str, ...]:
    table = read_json(adapter / "config.json")
    names = table.get("id2label")
    if not isinstance(names, dict) or sorted(names) != sorted(str(index) for index in range(len(names))):
        raise invalid("its adapter has no config.json with id2label, the classes of its head")
    return tuple(str(names[str(index)]) for index in range(len(names)))
