# SPDX-License-Identifier: Apache-2.0
"""Chooses among erasers on the validation part: what is left of the bias, and what is lost, under each.

An encoder is judged by its mean absolute raw association (`measures/association.py`), or where the part has too few
words for that by the mean of 1 - cosine within a set; what it may lose is similarity structure. A classifier is
judged by the mean absolute difference of logits within a set; what it may lose is accuracy on labelled rows. The
least bias wins among those that lose no more than allowed; where all lose more, the least loss does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cloister_workers.trainer.debias.counterparts import NO_SET, Counterpart, sets_of
from cloister_workers.trainer.debias.erasers import Affine, centred_in_sets
from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items
from cloister_workers.trainer.debias.measures.association import Association
from cloister_workers.trainer.debias.places import EncoderPlace, HeadPlace, Place
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.utilities.similarity import UTILITIES, unit

ALLOWED_STRUCTURE = 0.01
"""Loss of Spearman's correlation on the validation part: half of what the gate allows."""
ALLOWED_ACCURACY = 0.005
DEFAULT = "orthogonal"
_STRUCTURE = UTILITIES[0]


def choose(
    place: Place, fitted: Mapping[str, Affine], part: Part, axes: Sequence[str], entries: Sequence[Counterpart]
) -> str:
    """The name of one of `fitted`: the only one, else the best on `part`; DEFAULT where it can say nothing."""
    if len(fitted) == 1:
        return next(iter(fitted))
    paired = [entry for entry in entries if entry.set != NO_SET]
    judge: _Judge | None = None
    if isinstance(place, EncoderPlace):
        judge = _EncoderJudge(place, part, axes, paired)
    elif isinstance(place, HeadPlace):
        judge = _HeadJudge(place, part, paired)
    if judge is None or not judge.can_tell():
        return DEFAULT if DEFAULT in fitted else next(iter(fitted))
    found = {name: (judge.bias(affine), judge.loss(affine)) for name, affine in fitted.items()}
    good = {name: bias for name, (bias, loss) in found.items() if loss <= judge.allowed}
    return min(good, key=lambda name: good[name]) if good else min(found, key=lambda name: found[name][1])


class _Judge:
    """Bias and loss of one eraser."""

    allowed = 0.0

    def can_tell(self) -> bool:
        raise NotImplementedError

    def bias(self, affine: Affine) -> float:
        raise NotImplementedError

    def loss(self, affine: Affine) -> float:
        raise NotImplementedError


@dataclass
class _EncoderJudge(_Judge):
    place: EncoderPlace
    part: Part
    axes: Sequence[str]
    entries: Sequence[Counterpart]
    allowed = ALLOWED_STRUCTURE
    _tests: list[Items] = field(init=False)
    _neutral: Items | None = field(init=False)
    _known: dict[str, FloatArray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        found = [Association().items(self.part, axis) for axis in self.axes]
        self._tests = [items for items in found if isinstance(items, Items)]
        neutral = _STRUCTURE.items(self.part)
        self._neutral = neutral if isinstance(neutral, Items) else None

    def can_tell(self) -> bool:
        return self._neutral is not None and bool(self._tests or self.entries)

    def bias(self, affine: Affine) -> float:
        mapped = _Mapped(self, affine)
        if not self._tests:
            embedded = unit(mapped.embed([entry.text for entry in self.entries]))
            # within a set, the mean of 1 - cosine is the mean squared distance from the middle, up to a factor
            return float((centred_in_sets(embedded, sets_of(self.entries)) ** 2).sum(1).mean())
        raws = []
        for items in self._tests:
            shown = Association().by_group(items, Association().score(mapped, items), np.ones((1, len(items))))
            raws += [abs(float(values[0])) for name, values in shown.items() if name.endswith(" raw")]
        return float(np.mean(raws))

    def loss(self, affine: Affine) -> float:
        if self._neutral is None:
            return 0.0
        items, ones = self._neutral, np.ones((1, len(self._neutral)))
        before, after = (_STRUCTURE.score(_Mapped(self, each), items) for each in (None, affine))
        return float(_STRUCTURE.loss(items, before, after, ones)[0])

    def features(self, texts: Sequence[str]) -> FloatArray:
        """Each text goes through the model once for all erasers."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self.place.features(new), strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclass(frozen=True)
class _Mapped:
    """The encoder as it would be with a map; measures ask it like any other."""

    judge: _EncoderJudge
    affine: Affine | None

    @property
    def model(self) -> torch.nn.Module:
        """Without the map."""
        return self.judge.place.subject.model

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        """The encoder's."""
        return self.judge.place.subject.tokenizer

    @property
    def device(self) -> torch.device:
        """The encoder's."""
        return self.judge.place.subject.device

    def embed(self, texts: Sequence[str]) -> FloatArray:
        features = self.judge.features(texts)
        return features if self.affine is None else self.affine(features)


@dataclass
class _HeadJudge(_Judge):
    place: HeadPlace
    part: Part
    entries: Sequence[Counterpart]
    allowed = ALLOWED_ACCURACY
    _paired: FloatArray = field(init=False)
    _rows: FloatArray = field(init=False)
    _true: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        labels = list(self.place.subject.labels)
        rows = [row for row in self.part.rows.of(Labelled) if row.label in labels]
        self._paired = self.place.features([entry.text for entry in self.entries])
        self._rows = self.place.features([row.text for row in rows])
        self._true = np.array([labels.index(row.label) for row in rows], dtype=np.float64)

    def can_tell(self) -> bool:
        return len(self._paired) > 0 and len(self._rows) > 0

    def bias(self, affine: Affine) -> float:
        logits = self.place.answers(affine(self._paired))
        logits = logits - logits.mean(1, keepdims=True)  # a constant on all classes decides nothing
        return float(np.abs(centred_in_sets(logits, sets_of(self.entries))).mean())

    def loss(self, affine: Affine) -> float:
        right = [
            float((self.place.answers(features).argmax(1) == self._true).mean())
            for features in (self._rows, affine(self._rows))
        ]
        return right[0] - right[1]
