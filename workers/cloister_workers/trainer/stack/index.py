# SPDX-License-Identifier: Apache-2.0
"""A vector index: passages, their vectors, and the files of the layer.

    retrieval.json        settings, the encoder's digest, ids of documents, [document, start, end] of each passage
    chunks.json           the passages' texts
    vectors.safetensors   "vectors", float16 [n, d], of length 1: rounding moves a cosine by less than 0.001

Search is exact: one matrix product. A million passages of 384 numbers are 768 MB and 0.77 GFLOP a question, what a
model of 400 million weights computes for one token; an approximate index would save little and could miss passages
without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.layer import INDEX_FILE
from cloister_workers.trainer.stack.chunks import Chunk

CHUNKS_FILE, VECTORS_FILE = "chunks.json", "vectors.safetensors"
_BLOCK = 65_536  # vectors brought to float32 at one time
_QUESTIONS = 32  # of one matrix product


@dataclass(frozen=True)
class Hit:
    """A passage found: its number in the index, and the cosine."""

    chunk: int
    score: float


@dataclass(frozen=True)
class Index:
    """Passages of documents, ready to be searched."""

    documents: tuple[str, ...]
    """Their ids, by number."""
    chunks: tuple[Chunk, ...]
    vectors: torch.Tensor
    """float16 [chunks, d], of length 1."""
    encoder: str
    """Digest of the encoder that made the vectors; questions need the same one."""
    top_k: int
    """Passages shown with a question."""
    settings: Mapping[str, int]
    """How documents were cut: chunk_tokens, overlap."""

    def search(self, questions: torch.Tensor, count: int) -> list[list[Hit]]:
        """The nearest `count` passages to each question, nearest first. `questions`: float32 [q, d] of length 1."""
        return [hits for rows in torch.split(questions, _QUESTIONS) for hits in self._nearest(rows, count)]

    def _nearest(self, questions: torch.Tensor, count: int) -> list[list[Hit]]:
        blocks = torch.split(self.vectors, _BLOCK)
        scores = torch.cat([questions @ block.to(questions.device).float().T for block in blocks], dim=1)
        best = scores.topk(min(count, scores.shape[1]), dim=1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[Hit(*hit) for hit in zip(places, values, strict=True)] for places, values in pairs]

    def check(self) -> None:
        """Raise ValueError where documents, passages and vectors do not go together."""
        if self.vectors.dim() != 2 or len(self.vectors) != len(self.chunks) or not self.chunks:
            raise ValueError("not as many vectors as passages")
        if not all(0 <= chunk.document < len(self.documents) for chunk in self.chunks):
            raise ValueError("a passage of no document")

    def files(self) -> dict[str, bytes]:
        """The files of the layer."""
        table = {
            **self.settings,
            "top_k": self.top_k,
            "encoder": self.encoder,
            "documents": list(self.documents),
            "chunks": [[chunk.document, chunk.start, chunk.end] for chunk in self.chunks],
        }
        return {
            INDEX_FILE: _json(table),
            CHUNKS_FILE: _json([chunk.text for chunk in self.chunks]),
            VECTORS_FILE: save_tensors({"vectors": self.vectors.cpu().contiguous()}, {"format": "pt"}),
        }


def read_index(files: Mapping[str, bytes]) -> Index:
    """The index of a layer's files. Raises TrainerError MODEL_INVALID where they do not go together."""
    try:
        table: dict[str, Any] = json.loads(files[INDEX_FILE])
        texts: Sequence[str] = json.loads(files[CHUNKS_FILE])
        vectors = load_tensors(files[VECTORS_FILE])["vectors"]
        places = [(int(document), int(start), int(end)) for document, start, end in table["chunks"]]
        documents = tuple(str(name) for name in table["documents"])
        chunks = tuple(Chunk(*place, str(text)) for place, text in zip(places, texts, strict=True))
        settings = {name: int(table[name]) for name in ("chunk_tokens", "overlap")}
        index = Index(documents, chunks, vectors, str(table["encoder"]), int(table["top_k"]), settings)
        index.check()
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainerError(
            FailureCode.MODEL_INVALID, "the version's index cannot be used: its files do not go together; make it again"
        ) from error
    return index


def _json(value: object) -> bytes:
    return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
