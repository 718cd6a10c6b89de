# SPDX-License-Identifier: Apache-2.0
"""Rows of a retrieval job: documents, and questions of which is known where their answers stand.

A question is a row as `shots.py` reads it; its answer may be left out where `relevant` is there, and then recall alone
is measured. A passage is right

    by `relevant`   where it is of the document, or one of the documents, with this id
    by `context`    where it is of a document that holds this text
    else            where it holds the answer, upper and lower case alike (Karpukhin et al. 2020, arXiv:2004.04906)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloister_workers.messages import RowReason
from cloister_workers.trainer.rows import checked_text, text_of
from cloister_workers.trainer.stack.chunks import Chunk, Chunker, Document
from cloister_workers.trainer.stack.shots import Shot, questioned, read_shot


@dataclass(frozen=True)
class DocumentReader:
    """Reads documents; one without an id is named by its place among the rows, from 1."""

    chunker: Chunker
    ids: set[str] = field(default_factory=set)

    def read(self, rows: Sequence[Mapping[str, object]]) -> list[Document | RowReason]:
        """One document or reason per row."""
        return [self._read(row) for row in rows]

    def _read(self, row: Mapping[str, object]) -> Document | RowReason:
        text = text_of(dict(row), "text")
        if isinstance(text, RowReason):
            return text
        title = checked_text(row["title"]) if row.get("title") else ""
        if isinstance(title, RowReason):
            return title
        name = _name(row["id"]) if "id" in row else str(len(self.ids) + 1)
        if isinstance(name, RowReason):
            return name
        if name in self.ids:
            return RowReason.DUPLICATE
        self.ids.add(name)
        document = Document(name, text, title)
        return self.chunker.problem(document) or document


@dataclass(frozen=True)
class Asked:
    """A question: how it is searched, which passages are right, and its answer, where one is known."""

    text: str
    shot: Shot | None
    documents: frozenset[int]
    """Numbers of the documents whose passages are right; empty: those that hold one of the answers."""
    answers: tuple[str, ...] = ()

    def is_right(self, chunk: Chunk) -> bool:
        """Whether a passage is one that should be found."""
        if self.documents:
            return chunk.document in self.documents
        text = chunk.text.casefold()
        return any(answer.casefold() in text for answer in self.answers)


class QuestionReader:
    """Reads questions about these documents."""

    def __init__(self, documents: Sequence[Document], *, chat: bool) -> None:
        self._documents, self._chat = documents, chat
        self._numbers = {document.id: number for number, document in enumerate(documents)}

    def read(self, rows: Sequence[Mapping[str, object]]) -> list[Asked | RowReason]:
        """One question or reason per row."""
        return [self._read(row) for row in rows]

    def _read(self, row: Mapping[str, object]) -> Asked | RowReason:
        shot = self._shot(row)
        if isinstance(shot, RowReason):
            return shot
        documents = self._relevant(row)
        if isinstance(documents, RowReason):
            return documents
        if not documents and not shot.completion:
            return RowReason.MISSING_KEY
        known = bool(shot.completion)
        return Asked(shot.asked, shot if known else None, documents, shot.references if known else ())

    def _shot(self, row: Mapping[str, object]) -> Shot | RowReason:
        """The question as the model is asked it; its answer may be left out where `relevant` says what is right."""
        if "question" not in row or {"answer", "answers"} & set(row):
            return read_shot(row, chat=self._chat)
        question = text_of(dict(row), "question")
        return question if isinstance(question, RowReason) else questioned(question, (), chat=self._chat)

    def _relevant(self, row: Mapping[str, object]) -> frozenset[int] | RowReason:
        if "relevant" in row:
            given = row["relevant"]
            names = [_name(entry) for entry in (given if isinstance(given, list) else [given])]
            reasons = [name for name in names if isinstance(name, RowReason)]
            if reasons or not names:
                return reasons[0] if reasons else RowReason.MISSING_KEY
            known = frozenset(self._numbers[str(name)] for name in names if name in self._numbers)
            return known if len(known) == len(set(names)) else RowReason.ANSWER_NOT_FOUND
        if "context" in row:
            context = text_of(dict(row), "context")
            if isinstance(context, RowReason):
                return context
            held = frozenset(n for n, document in enumerate(self._documents) if context.strip() in document.text)
            return held or RowReason.ANSWER_NOT_FOUND
        return frozenset()


def _name(value: object) -> str | RowReason:
    """The id of a document: a text, or a whole number in its decimal form."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else checked_text(value)
