# SPDX-License-Identifier: Apache-2.0
"""The weights layer of an adapted version that a job starts from: a LoRA adapter on the base model, or a whole model
in its place. What other layers there are, `stack/` knows.

A version has one weights layer, which stands alone on the base. So an adapter is trained on as it is, and weights that
stand in the base's place give whole weights again, whichever way they are trained.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, SpecField
from cloister_workers.trainer.adapt import attach_new, attach_saved, merge_adapter
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.model import Base
from cloister_workers.trainer.spec import Adapter, Lora

_ADAPTER, _MODEL, _TOKENIZER = "adapter_config.json", "config.json", "tokenizer.json"
_CLASSIFIERS = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
"""Models with classes: what peft calls them, and how transformers' names for them end."""


class LayerKind(StrEnum):
    """The classes of layers; a version has at most one of weights (the first two), an index, and demonstrations."""

    ADAPTER = "adapter"
    MERGED_WEIGHTS = "merged_weights"
    RETRIEVAL_INDEX = "retrieval_index"
    DEMONSTRATIONS = "demonstrations"

    @property
    def is_weights(self) -> bool:
        """Whether it changes what the model computes, and not what it is asked."""
        return self in (LayerKind.ADAPTER, LayerKind.MERGED_WEIGHTS)


INDEX_FILE, DEMONSTRATIONS_FILE = "retrieval.json", "demonstrations.json"


def kind_of(names: Collection[str]) -> LayerKind:
    """The class of a layer with files of these names."""
    marks = (
        (_ADAPTER, LayerKind.ADAPTER),
        (INDEX_FILE, LayerKind.RETRIEVAL_INDEX),
        (DEMONSTRATIONS_FILE, LayerKind.DEMONSTRATIONS),
    )
    return next((kind for name, kind in marks if name in names), LayerKind.MERGED_WEIGHTS)


@dataclass(frozen=True)
class Layer:
    """The files of a version, unpacked."""

    folder: Path
    adapter: Mapping[str, Any] | None
    """Its adapter_config.json; None where the folder is a whole model."""
    labels: tuple[str, ...]
    """The classes of a classifier, in the order of its logits; empty for other models."""
    problem_type: str
    """What transformers calls the kind of a classifier's classes; empty where its files do not say."""
    base_name: str
    """The base model's given name as the version's files carry it; empty where they do not."""

    def model_dir(self, base: str) -> str:
        """Where the whole weights are."""
        return base if self.adapter is not None else str(self.folder)

    def tokenizer_dir(self, base: str) -> str:
        """Where the tokenizer is that the version was trained with."""
        return str(self.folder) if (self.folder / _TOKENIZER).is_file() else base


def model_dir(layer: Layer | None, base: str) -> str:
    """Where the whole weights are, of a version or of the base model alone."""
    return layer.model_dir(base) if layer else base


def tokenizer_dir(layer: Layer | None, base: str) -> str:
    """Where the tokenizer is, of a version or of the base model alone."""
    return layer.tokenizer_dir(base) if layer else base


def unpack_layer(stream: BinaryIO, scratch: str) -> Layer:
    """Unpack a version's bundle into a new folder under `scratch`, which stays as long as the job.

    Raises TrainerError MODEL_INVALID where it is no bundle of a version's weights.
    """
    return weights_of(read_layer(stream), scratch)


def weights_layer(inputs: Mapping[DatasetRole, BinaryIO], scratch: str) -> Layer | None:
    """The weights among the layers that a job starts from, unpacked; the layers above them stay unread.

    Weights are always the lowest layer, so the others need no look. Raises TrainerError MODEL_INVALID.
    """
    if DatasetRole.LAYER not in inputs:
        return None
    files = read_layer(inputs[DatasetRole.LAYER])
    return weights_of(files, scratch) if kind_of(files).is_weights else None


def read_layer(stream: BinaryIO) -> dict[str, bytes]:
    """The files of a layer. Raises TrainerError MODEL_INVALID where it is no bundle."""
    try:
        return read_bundle(stream)
    except ValueError as error:
        raise _invalid("one of its layers is no whole bundle of files") from error


def weights_of(files: Mapping[str, bytes], scratch: str) -> Layer:
    """The files of a weights layer in a new folder under `scratch`. Raises TrainerError MODEL_INVALID."""
    try:
        folder = write_folder(files, tempfile.mkdtemp(dir=scratch, prefix="layer-"))
        config = _table(folder / _MODEL)
        adapter = _table(folder / _ADAPTER) if (folder / _ADAPTER).is_file() else None
        name = config.get("_name_or_path", "") if adapter is None else adapter.get("base_model_name_or_path", "")
        kind = str(config.get("problem_type") or "")
        return Layer(folder, adapter, _labels(config, adapter), kind, name if isinstance(name, str) else "")
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise _invalid("its files are not those of a version that a job made") from error


def attach(base: Base, layer: Layer | None, wanted: Adapter) -> torch.nn.Module:
    """The model to train: what the layer has, what the specification asks for.

    Raises SpecError ADAPTER_INVALID where the adapter that is there is not the one asked for, TrainerError
    MODEL_INVALID where it does not load.
    """
    if layer is None or layer.adapter is None:
        return attach_new(base, wanted)
    _check_task(layer.adapter, base.task)
    if not isinstance(wanted, Lora):
        merged = merge_adapter(attach_saved(base, layer.folder, 0.0))
        return attach_new(Base(merged, (), base.task), wanted)
    _check_shape(layer.adapter, wanted)
    return attach_saved(base, layer.folder, wanted.dropout)


def applied(base: Base, layer: Layer | None) -> torch.nn.Module:
    """The model with the layer in force, to be asked and not trained; raises as `attach`."""
    if layer is None or layer.adapter is None:
        return base.model.requires_grad_(False).eval()
    _check_task(layer.adapter, base.task)
    return attach_saved(base, layer.folder, 0.0).requires_grad_(False).eval()


def labels_of(folder: str) -> tuple[str, ...]:
    """The classes of the classifier in a folder of whole weights, in the order of its logits; empty for other models.

    Raises TrainerError MODEL_INVALID.
    """
    try:
        return _labels(_table(Path(folder) / _MODEL), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _invalid("its config.json is missing or names no classes") from error


def finished(model: torch.nn.Module, layer: Layer | None, wanted: Adapter) -> torch.nn.Module:
    """The model as it is measured and exported: an adapter on whole weights goes into them, or where that is asked."""
    asked = isinstance(wanted, Lora) and wanted.merge
    if hasattr(model, "peft_config") and (asked or (layer is not None and layer.adapter is None)):
        return merge_adapter(model)
    return model


def _check_task(adapter: Mapping[str, Any], task: str | None) -> None:
    if adapter.get("peft_type") != "LORA" or adapter.get("task_type") != task:
        raise SpecError(
            FailureCode.ADAPTER_INVALID,
            SpecField.METHOD,
            f"the version's adapter is for {adapter.get('task_type')}, the method needs {task}; name a version of that "
            "kind, or the base model",
        )


def _check_shape(adapter: Mapping[str, Any], wanted: Lora) -> None:
    """An adapter keeps its shape; a specification that says another one was signed in error."""
    pairs = (
        (SpecField.RANK, adapter.get("r"), wanted.rank),
        (SpecField.ALPHA, adapter.get("lora_alpha"), wanted.alpha),
        (SpecField.RSLORA, bool(adapter.get("use_rslora")), wanted.rslora),
        (SpecField.DORA, bool(adapter.get("use_dora")), wanted.dora),
    )
    for name, found, said in pairs:
        if found != said:
            raise SpecError(FailureCode.ADAPTER_INVALID, name, f"{name} is {said}, the version's adapter has {found}")
    found = adapter.get("target_modules") or []
    if wanted.target_modules and sorted(wanted.target_modules) != sorted(found):
        raise SpecError(
            FailureCode.ADAPTER_INVALID,
            SpecField.TARGET_MODULES,
            f"target_modules are {sorted(wanted.target_modules)}, the version's adapter is on {sorted(found)}",
        )


def _labels(config: Mapping[str, Any], adapter: Mapping[str, Any] | None) -> tuple[str, ...]:
    if adapter is None:
        ends = tuple(_CLASSIFIERS.values())
        classifies = any(str(name).endswith(ends) for name in config.get("architectures") or ())
    else:
        classifies = adapter.get("task_type") in _CLASSIFIERS
    if not classifies:
        return ()
    names = config["id2label"]
    return tuple(str(names[str(index)]) for index in range(len(names)))


def _table(path: Path) -> dict[str, Any]:
    table = json.loads(path.read_bytes())
    if not isinstance(table, dict):
        raise TypeError(f"{path.name} is no object")
    return table


def _invalid(why: str) -> TrainerError:
    return TrainerError(FailureCode.MODEL_INVALID, f"the version cannot be used: {why}; make it again")
