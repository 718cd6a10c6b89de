# SPDX-License-Identifier: Apache-2.0
"""Names that every part of a de-biasing job shares."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class ModelKind(StrEnum):
    """What kind of model a job de-biases: `method.debias.task` of the spec."""

    CLASSIFIER = "classifier"
    CAUSAL = "causal_lm"
    MASKED = "masked_lm"
    ENCODER = "sentence_encoder"


class Scale(StrEnum):
    """The unit of a figure; the last two are of figures in `by_group` alone."""

    SHARE = "share"  # 0 to 1
    POINTS = "points"  # 0 to 100
    NATS = "nats"  # differences of natural logarithms
    COSINE = "cosine"
    RATIO = "ratio"
    NATS_MEAN = "nats a token"
    DEVIATIONS = "standard deviations"
