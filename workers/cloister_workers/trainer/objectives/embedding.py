# SPDX-License-Identifier: Apache-2.0
"""Sentence embeddings by contrast: rows of `query`, `positive` and optionally `negative`.

With s(a, b) the cosine of two embeddings divided by the temperature, and a step's n queries q_i, positives p_i and
negatives d_k (InfoNCE, van den Oord et al. 2018, arXiv:1807.03748; both ways, as sentence-transformers'
MultipleNegativesRankingLoss has it per direction):

    loss_i = - (log softmax over {p_j, d_k} of s(q_i, .)) [p_i] / 2 - (log softmax over {q_j} of s(., p_i)) [q_i] / 2

A text that is right for q_i by another row of the batch (same query, or same positive) is left out of its sums, so that
a repeated text is no negative of itself. A loss is of its whole batch, so a step is one forward pass whatever
micro_batch_size says, and the evaluated loss depends on batch_size.

Embeddings are pooled, mapped and scaled as the folder's sentence-transformers files say, else the mean of all tokens;
what follows the transformer is not trained, and is exported as it was. Texts are cut to max_seq_length tokens, or
refused where the specification says so.

Retrieval is measured among all positives and negatives of the evaluation rows: recall at 1 and at 10, and mean
reciprocal rank, of a row's positive, other positives of the same query left out (the filtered ranks of Bordes et al.
2013); a tie counts as lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.messages import MetricName, Metrics, RowReason, SpecField
from cloister_workers.trainer.debias.subjects.pipeline import Head, head_files, is_pipeline, read_head
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.model import Base, load_encoder, need_encoder
from cloister_workers.trainer.padding import padded_examples
from cloister_workers.trainer.ranking import rank_metrics
from cloister_workers.trainer.rows import text_of
from cloister_workers.trainer.spec import REFUSE, Method, check, read_settings
from cloister_workers.trainer.texts import TextReader

K = 10
"""Of recall at k."""


@dataclass(frozen=True)
class Settings:
    """The method's own of the specification."""

    temperature: float = 0.05

    def __post_init__(self) -> None:
        good = 0.001 <= self.temperature <= 10
        check(good, SpecField.TEMPERATURE, "0.001 to 10", self.temperature)


@dataclass(frozen=True)
class Embedding:
    """The chain of an example is query, positive, and negative where there is one; the group of each is its text's
    digest.
    """

    reader: TextReader
    head: Head
    batch_size: int
    temperature: float
    device: torch.device

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        texts = []
        for key in ("query", "positive", "negative") if "negative" in row else ("query", "positive"):
            text = text_of(row, key)
            if isinstance(text, RowReason):
                return text
            texts.append(text)
        example: Example | None = None
        encoded = self.reader.encode([(self.head.prompt + text,) for text in texts])
        cut = any(entry.truncated for entry in encoded)
        if cut and self.reader.refuse:
            return RowReason.TOO_LONG
        for text, entry in reversed(list(zip(texts, encoded, strict=True))):
            example = Example(tokens=entry.tokens, group=digest_of(text), digest=digest_of(text), other=example)
        if example is None:
            return RowReason.MISSING_KEY
        return replace(example, digest=digest_of(*texts), truncated=cut)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return [list(batch)] if batch else []

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """`predicted` is 1 where the positive is nearest to its query in the batch: [n]."""
        chains = [example.chain for example in examples]
        queries, positives = [chain[0] for chain in chains], [chain[1] for chain in chains]
        negatives = [chain[2] for chain in chains if len(chain) > 2]
        count = len(examples)
        embedded = functional.normalize(self.embed(model, [*queries, *positives, *negatives]), dim=-1)
        scores = embedded[:count] @ embedded[count:].T / self.temperature
        scores = scores.masked_fill(_also_right(queries, positives, negatives).to(self.device), float("-inf"))
        true = torch.arange(count, device=self.device)
        there = functional.cross_entropy(scores, true, reduction="none")
        back = functional.cross_entropy(scores[:, :count].T, true, reduction="none")
        return Outcome((there + back) / 2, (scores.detach().argmax(-1) == true).long())

    def embed(self, model: torch.nn.Module, sequences: Sequence[Example]) -> torch.Tensor:
        """Sentence embeddings, float32 [n, d]."""
        batch = padded_examples(sequences, self.reader.tokenizer.pad_token_id, self.device)
        tokens = model(**batch).last_hidden_state
        return self.head(tokens.float(), batch["attention_mask"])

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return {MetricName.EVAL_LOSS: sum(sums) / len(sums), MetricName.EVAL_ROWS: float(len(sums))}

    def examine(
        self, model: torch.nn.Module, examples: Sequence[Example], before_batch: Callable[[], object]
    ) -> Metrics:
        """Retrieval of each row's positive from the texts of all rows."""
        chains = [example.chain for example in examples]
        documents = {text.digest: text for chain in chains for text in chain[1:]}
        queries = self._embedded(model, [chain[0] for chain in chains], before_batch)
        pool = self._embedded(model, list(documents.values()), before_batch)
        place = {digest: number for number, digest in enumerate(documents)}
        rights = defaultdict[bytes, set[int]](set)
        for chain in chains:
            rights[chain[0].group].add(place[chain[1].digest])
        ranks = []
        for chain, vector in zip(chains, queries, strict=True):
            cosines, own = pool @ vector, place[chain[1].digest]
            threshold = float(cosines[own])
            cosines[list(rights[chain[0].group])] = float("-inf")
            ranks.append(1 + int((cosines >= threshold).sum()))
        return rank_metrics(ranks, K)

    def _embedded(
        self, model: torch.nn.Module, sequences: Sequence[Example], before_batch: Callable[[], object]
    ) -> torch.Tensor:
        """Unit vectors on the CPU, float32 [n, d]."""
        found = []
        for start in range(0, len(sequences), self.batch_size):
            before_batch()
            found.append(self.embed(model, sequences[start : start + self.batch_size]).cpu())
        return functional.normalize(torch.cat(found), dim=-1)


def _also_right(queries: Sequence[Example], positives: Sequence[Example], negatives: Sequence[Example]) -> torch.Tensor:
    """Where a candidate is right for a query by another row, bool [queries, positives and negatives]."""
    rights = defaultdict[bytes, set[bytes]](set)
    for query, positive in zip(queries, positives, strict=True):
        rights[query.group].add(positive.digest)
    marks = [[text.digest in rights[query.group] for text in (*positives, *negatives)] for query in queries]
    for number in range(len(queries)):
        marks[number][number] = False
    return torch.tensor(marks)


def _objective(setup: Setup) -> Embedding:
    settings, wanted = read_settings(Settings, setup.settings), setup.hyperparameters
    folder = Path(setup.model_dir)
    if not is_pipeline(folder):
        need_encoder(setup.config)
    _, head = read_head(folder)
    for step in head.steps:
        step.to(setup.device).requires_grad_(False)
    reader = TextReader(setup.tokenizer, wanted.max_seq_length, setup.too_long == REFUSE)
    return Embedding(reader, head, wanted.batch_size, settings.temperature, setup.device)


def _load(model_dir: str, _: Embedding, device: torch.device) -> Base:
    place, _head = read_head(Path(model_dir))
    return load_encoder(str(place), device)


def _files(
    objective: Embedding,
    model: torch.nn.Module,
    tokenizer: Any,  # noqa: ANN401 - transformers' own type is dynamic
    name: str,
    scratch: str,
) -> Mapping[str, bytes]:
    """The transformer or the adapter on it, and the files that make it a sentence encoder."""
    config: Any = model.config
    return export_files(model, tokenizer, name, scratch) | head_files(objective.head, int(config.hidden_size))


METHOD = TrainingMethod(name=Method.EMBEDDING, objective=_objective, load=_load, files=_files, padded=True)
