# SPDX-License-Identifier: Apache-2.0
"""Pre-training, from random weights or further from the model's own, on documents: rows of `text`.

Which objective: that of `language_model.py` (next tokens, packed) or of `masked_language_model.py`; `auto` goes by the
model's architecture. A document of more than max_seq_length tokens, or than the model has positions for, is cut into
several examples, so nothing is lost; data.too_long may have it cut off or refused. All parts of a document go to one
side of a split. Measured: loss with an interval over documents, perplexity, the share of right tokens.

Random weights are drawn from the seed as the architecture initialises them; the model's folder then needs only
config.json, and where the tokenizer is trained too, no tokenizer. That one is made from all training rows, held-out
parts included (`byte_pairs.py`); the configuration's vocabulary and special tokens follow it.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import torch
from transformers.models.auto import modeling_auto

from cloister_workers.errors import ModelKindError, SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, MetricName, Metrics, ModelNeed, RowReason, SpecField
from cloister_workers.trainer.byte_pairs import as_loaded, fit_config, specials_of, train_tokenizer
from cloister_workers.trainer.dataset import unreadable
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.method import Setup, Streams, TrainingMethod, load_packed
from cloister_workers.trainer.metrics import ratio_interval, with_ends
from cloister_workers.trainer.model import Base, draw_causal, draw_masked, load_config, load_masked
from cloister_workers.trainer.objectives.language_model import CorpusReader, fitting
from cloister_workers.trainer.objectives.masked_language_model import MaskedLanguageModel
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.probe import settle_packing
from cloister_workers.trainer.rows import Row, read_rows, text_of
from cloister_workers.trainer.spec import Full, Method, TrainingSpec, check, read_settings

AUTO, CAUSAL, MASKED = "auto", "causal", "masked"
PRETRAINED, RANDOM = "pretrained", "random"
GIVEN, TRAINED = "given", "trained"


@dataclass(frozen=True)
class Settings:
    """The method's own, as the contract says them."""

    objective: str = AUTO
    initialisation: str = PRETRAINED
    tokenizer: str = GIVEN
    vocabulary_size: int = 4096
    masking: float = 0.15

    def __post_init__(self) -> None:
        for name, value, known in (
            (SpecField.OBJECTIVE, self.objective, (AUTO, CAUSAL, MASKED)),
            (SpecField.INITIALISATION, self.initialisation, (PRETRAINED, RANDOM)),
            (SpecField.TOKENIZER, self.tokenizer, (GIVEN, TRAINED)),
        ):
            check(value in known, name, f"one of {list(known)}", value)
        size = self.vocabulary_size
        check(260 <= size <= 10**6, SpecField.VOCABULARY_SIZE, "260 to 10^6", size)
        check(0.01 <= self.masking <= 0.9, SpecField.MASKING, "0.01 to 0.9", self.masking)
        if self.tokenizer == TRAINED and self.initialisation != RANDOM:
            raise SpecError(
                FailureCode.SPEC_INVALID,
                SpecField.TOKENIZER,
                "tokenizer is trained, but the model's own weights know another; give initialisation random",
            )


@dataclass(frozen=True)
class LanguageModeling:
    """Documents, whole."""

    likelihood: Supervised | MaskedLanguageModel
    reader: CorpusReader | MaskedLanguageModel
    too_long: str
    drawn: Any = None
    """The configuration that random weights are drawn by; None: the model's own weights are loaded."""

    def read(self, rows: Sequence[dict[str, object]]) -> list[RowReason | tuple[Example, ...]]:
        return [fitting(self.reader.pieces(row), self.too_long) for row in rows]

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return self.likelihood.micro_batches(batch)

    def with_micro_batch(self, size: int) -> LanguageModeling:
        return replace(self, likelihood=self.likelihood.with_micro_batch(size))

    def weight(self, example: Example) -> int:
        return self.likelihood.weight(example)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        return self.likelihood.outcome(model, examples)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        found = dict(self.likelihood.score(examples, sums, predicted))
        found[MetricName.EVAL_ROWS] = float(len({example.group for example in examples}))
        weights, documents = [self.weight(example) for example in examples], [example.group for example in examples]
        interval = ratio_interval(sums, weights, documents)
        if interval is not None:
            found |= with_ends(MetricName.EVAL_LOSS, found[MetricName.EVAL_LOSS], interval)
        return found


def is_masked(config: Any, objective: str) -> bool:  # noqa: ANN401 - transformers' own type is dynamic
    """Whether masked tokens are learned, not next ones. An architecture made for both, such as BERT, is masked unless
    its configuration says that it is a decoder.

    Raises ModelKindError where transformers knows the architecture as no such language model.
    """
    kind = str(config.model_type)
    known = {
        MASKED: kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        CAUSAL: kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    decoder = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    if objective == AUTO:
        objective = MASKED if known[MASKED] and not decoder else CAUSAL
    if not known[objective]:
        raise ModelKindError(
            FailureCode.MODEL_INVALID,
            ModelNeed.MASKED if objective == MASKED else ModelNeed.CAUSAL,
            f"the base model is of a kind that has no {objective} language model; name another",
        )
    return objective == MASKED


def _objective(setup: Setup) -> LanguageModeling:
    settings, wanted = read_settings(Settings, setup.settings), setup.hyperparameters
    masked, config = is_masked(setup.config, settings.objective), None
    if settings.initialisation == RANDOM:
        _check_random(setup)
        config = copy.deepcopy(setup.config)
        if settings.tokenizer == TRAINED:
            fit_config(config, setup.tokenizer)
        config.vocab_size = max(config.vocab_size, len(setup.tokenizer))
    longest = setup.longest
    if not masked:
        reader = CorpusReader(setup.tokenizer, longest)
        packed = Supervised(reader, wanted.micro_batch_size * longest, setup.device)
        return LanguageModeling(packed, reader, setup.too_long, config)
    if setup.tokenizer.mask_token_id is None:
        raise TrainerError(
            FailureCode.MODEL_INVALID,
            "the base model cannot be used: its tokenizer has no mask token; take a masked language model such as BERT",
        )
    gaps = MaskedLanguageModel(
        setup.tokenizer, longest, wanted.micro_batch_size, setup.device, setup.seed, settings.masking
    )
    return LanguageModeling(gaps, gaps, setup.too_long, config)


def _check_random(setup: Setup) -> None:
    if not isinstance(setup.adapter, Full):
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.ADAPTER,
            "initialisation is random, so every weight must be trained; give adapter full",
        )
    if setup.continued:
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.INITIALISATION,
            "initialisation is random, but the job starts from a version; name a base model",
        )


def _vocabulary(spec: TrainingSpec, model_dir: str, inputs: Streams) -> tuple[Any, Streams] | None:
    """Rows come through a pipe, which is read once; so they are kept in memory."""
    settings = read_settings(Settings, spec.settings)
    if settings.tokenizer != TRAINED:
        return None
    config = load_config(model_dir)
    specials = specials_of(config, masked=is_masked(config, settings.objective))
    try:
        content = inputs[DatasetRole.TRAINING].read()
    except OSError as error:
        raise unreadable() from error
    texts = _texts(io.BytesIO(content), spec.data.max_rows)
    tokenizer = as_loaded(train_tokenizer(texts, settings.vocabulary_size, specials), config)
    return tokenizer, {**inputs, DatasetRole.TRAINING: io.BytesIO(content)}


def _texts(stream: BinaryIO, limit: int) -> Iterator[str]:
    """The usable texts; what is wrong with others, validation tells afterwards."""
    for count, row in enumerate(read_rows(stream)):
        if limit and count >= limit:
            return
        text = text_of(row.value, "text") if isinstance(row, Row) else RowReason.NOT_JSON
        if not isinstance(text, RowReason):
            yield text


def _load(model_dir: str, objective: LanguageModeling, device: torch.device) -> Base:
    masked = isinstance(objective.likelihood, MaskedLanguageModel)
    if objective.drawn is None:
        return load_masked(model_dir, device) if masked else load_packed(model_dir, objective, device)
    if masked:
        return draw_masked(objective.drawn, device)
    base = draw_causal(objective.drawn, device)
    settle_packing(base.model, device)
    return base


METHOD = TrainingMethod(name=Method.LANGUAGE_MODELING, objective=_objective, load=_load, vocabulary=_vocabulary)
