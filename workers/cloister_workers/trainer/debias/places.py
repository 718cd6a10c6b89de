# SPDX-License-Identifier: Apache-2.0
"""Where a linear map goes into a model so that plain libraries apply it without knowing: before the step that is
linear anyway.

A sentence encoder gets one more dense layer without activation, behind its pooling and before it scales to unit
length. A classifier's last linear layer takes the map into its own numbers: W' = W P, b' = b + W b_P. Whether the
logits are that layer's output is tried out, not assumed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from cloister_workers.messages import RefusalReason
from cloister_workers.trainer.debias.erasers import Affine
from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind
from cloister_workers.trainer.debias.mitigation import Case, Layer, Refused
from cloister_workers.trainer.debias.subjects.classifier import ClassifierSubject
from cloister_workers.trainer.debias.subjects.encoder import EncoderSubject
from cloister_workers.trainer.debias.subjects.pipeline import pipeline_files
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.forward import batches, undisturbed
from cloister_workers.trainer.padding import padded

_TOLERANCE = 1e-3  # of the largest logit
_TRIED = ("one", "two words", "a text of a few more words than that")


class Place(Protocol):
    """A point inside a model behind which all is linear, up to scaling."""

    @property
    def width(self) -> int:
        """Dimensions there."""
        ...

    def features(self, texts: Sequence[str]) -> FloatArray:
        """What texts are there: float64 [n, width]."""
        ...

    def answers(self, features: FloatArray) -> FloatArray:
        """What the model makes of features: embeddings before scaling, or logits."""
        ...

    def fold(self, affine: Affine) -> bool:
        """Put the map into the weights, for good. Returns whether its constant part found a place too."""
        ...

    def files(self, model_name: str, scratch: str) -> tuple[Layer, Mapping[str, bytes]]:
        """The model as it is now, as files of a version."""
        ...


def place_of(case: Case) -> Place:
    """Where the case's model takes a map. Raises Refused MODEL_KIND or NOT_LINEAR."""
    if case.kind is ModelKind.ENCODER:
        return EncoderPlace(case.subject)
    if case.kind is ModelKind.CLASSIFIER:
        return _head_of(case.subject)
    raise Refused(RefusalReason.MODEL_KIND, f"erasure does not fit a {case.kind}; use it on an encoder or classifier")


@dataclass(frozen=True)
class EncoderPlace:
    """Behind pooling and dense layers."""

    subject: EncoderSubject

    @property
    def width(self) -> int:
        return int(self.features(_TRIED[:1]).shape[1])

    def features(self, texts: Sequence[str]) -> FloatArray:
        return self.subject.unscaled(texts)

    def answers(self, features: FloatArray) -> FloatArray:
        return features

    def fold(self, affine: Affine) -> bool:
        self.subject.model.append_linear(torch.from_numpy(affine.P), torch.from_numpy(affine.b))
        return True

    def files(self, model_name: str, scratch: str) -> tuple[Layer, Mapping[str, bytes]]:
        return Layer.ERASURE, pipeline_files(self.subject.model, self.subject.tokenizer, model_name, scratch)


@dataclass(frozen=True)
class HeadPlace:
    """Before the last linear layer of a classifier."""

    subject: ClassifierSubject
    head: torch.nn.Linear

    @property
    def width(self) -> int:
        return self.head.in_features

    def features(self, texts: Sequence[str]) -> FloatArray:
        return self.both(texts)[0]

    def answers(self, features: FloatArray) -> FloatArray:
        logits: FloatArray = features @ _wide(self.head.weight).T
        bias = _bias(self.head)
        return logits if bias is None else logits + _wide(bias)

    def fold(self, affine: Affine) -> bool:
        weight, bias = _wide(self.head.weight), _bias(self.head)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight @ affine.P))
            if bias is not None:
                bias.copy_(torch.from_numpy(_wide(bias) + weight @ affine.b))
        return bias is not None

    def files(self, model_name: str, scratch: str) -> tuple[Layer, Mapping[str, bytes]]:
        layer = Layer.ADAPTER if hasattr(self.subject.model, "peft_config") else Layer.ERASURE
        return layer, export_files(self.subject.model, self.subject.tokenizer, model_name, scratch)

    def both(self, texts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Features [n, width] and logits [n, classes] of one pass. A head that sees every token counts at the last."""
        subject, seen = self.subject, list[torch.Tensor]()
        features: FloatArray = np.zeros((len(texts), self.width))
        logits: FloatArray = np.zeros((len(texts), self.head.out_features))
        ids = [
            subject.tokenizer(text, truncation=True, max_length=subject.max_seq_length)["input_ids"] for text in texts
        ]
        lengths = [len(entry) for entry in ids]
        handle = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            with undisturbed(subject.model, subject.device):
                for chosen in batches(lengths, subject.batch_size, self.head.out_features):
                    subject.poll()
                    batch = padded([ids[index] for index in chosen], subject.tokenizer.pad_token_id, subject.device)
                    logits[chosen] = subject.model(**batch).logits.double().cpu().numpy()
                    hidden = seen.pop()
                    if hidden.dim() == 3:
                        last = torch.tensor([lengths[index] - 1 for index in chosen], device=hidden.device)
                        hidden = hidden[torch.arange(len(chosen), device=hidden.device), last]
                    features[chosen] = hidden.double().cpu().numpy()
        finally:
            handle.remove()
        return features, logits


def _head_of(subject: ClassifierSubject) -> HeadPlace:
    head = _last_linear(subject)
    if head is None and hasattr(subject.model, "merge_and_unload"):
        # the head itself is adapted: make it one matrix, and leave the case's own model as it is
        adapted: Any = copy.deepcopy(subject.model)
        subject = replace(subject, model=adapted.merge_and_unload())
        head = _last_linear(subject)
    if head is None:
        raise _not_linear("no linear layer gives its classes")
    place = HeadPlace(subject, head)
    try:
        features, logits = place.both(_TRIED)
    except (IndexError, ValueError) as error:
        raise _not_linear("its last linear layer is not asked once a text") from error
    if not np.abs(place.answers(features) - logits).max() <= _TOLERANCE * max(1.0, float(np.abs(logits).max())):
        raise _not_linear("something else follows its last linear layer")
    return place


def _last_linear(subject: ClassifierSubject) -> torch.nn.Linear | None:
    """The last linear layer as wide as there are classes; in a peft model, one that the adapter holds whole."""
    adapted = hasattr(subject.model, "peft_config")
    found = None
    for name, module in subject.model.named_modules():
        plain = type(module) is torch.nn.Linear and module.out_features == len(subject.labels)
        if plain and (".modules_to_save." in name if adapted else True):
            found = module
    return found


def _bias(linear: torch.nn.Linear) -> torch.Tensor | None:
    """None for a layer that was made without; torch's own annotation leaves that out."""
    bias: torch.Tensor | None = linear.bias
    return bias


def _wide(tensor: torch.Tensor) -> FloatArray:
    numbers: FloatArray = tensor.detach().double().cpu().numpy()
    return numbers


def _not_linear(why: str) -> Refused:
    return Refused(
        RefusalReason.NOT_LINEAR, f"nothing can be folded into this classifier: {why}; use a mitigation that trains"
    )
