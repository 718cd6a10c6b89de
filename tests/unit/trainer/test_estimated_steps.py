# SPDX-License-Identifier: Apache-2.0
"""The steps that a dry run tells are those that the trainer plans for such rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from cloister.estimates import Estimate, estimate
from cloister.spec import read_spec, resolve, spec_bytes
from cloister_workers.trainer.loop import plan_of
from cloister_workers.trainer.objectives.language_model import CorpusReader, fitting
from cloister_workers.trainer.spec import TrainingSpec, parse_spec, read_settings
from cloister_workers.trainer.steps import reinforcement


class FourBytes:
    """A tokenizer for which every four characters are a token, as an estimate takes it."""

    eos_token_id, bos_token_id, unk_token_id = 0, None, None
    all_special_ids = (0,)

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [1] * (len(text) // 4)}


def asked(
    method: Mapping[str, object], rows: int, tokens: int, too_long: str = "", **more: str
) -> tuple[TrainingSpec, Estimate]:
    """What the trainer reads, and what the client tells, of so many rows of so many tokens."""
    data: dict[str, object] = {"validation_fraction": 0.0, "evaluation_fraction": 0.0}
    if too_long:
        data["too_long"] = too_long
    values = {"model": "m", "training_dataset": "d", "purpose": "p", "method": method, "data": data, **more}
    spec = resolve(read_spec(values))
    sealed = SimpleNamespace(trailer=SimpleNamespace(rows=rows, plaintext_size=4 * tokens * rows))
    start: Any = SimpleNamespace(base=SimpleNamespace(trailer=SimpleNamespace(rows=None, plaintext_size=2_000_000)))
    inputs: Any = {"training": sealed}
    found = estimate(spec, start, inputs)
    assert found is not None
    return parse_spec(json.loads(spec_bytes(spec))), found


@pytest.mark.parametrize("kind", ["language_modeling", "distillation"])
@pytest.mark.parametrize("too_long", ["", "truncate"])
@pytest.mark.parametrize("tokens", [5, 61, 62, 63, 64, 125, 126, 300])
def test_documents_count_by_their_pieces(kind: str, too_long: str, tokens: int) -> None:
    """Texts of any length take as many steps as their pieces fill, and the tokens of all of them."""
    hyper = {"n_epochs": 2, "batch_size": 16, "micro_batch_size": 4, "max_seq_length": 64}
    spec, found = asked({kind: {"hyperparameters": hyper}}, 50, tokens, too_long, auxiliary_model="t")
    pieces = fitting(CorpusReader(FourBytes(), 64).pieces({"text": "word" * tokens}), too_long)
    assert isinstance(pieces, tuple)
    assert plan_of(spec, 50 * len(pieces)).max_steps == found.steps
    assert 2 * 50 * (tokens if not too_long else min(tokens, 64)) == found.tokens
    assert found.by_length is not bool(too_long)


@pytest.mark.parametrize("tokens", [64, 300])
def test_steps_that_are_given_take_pieces(tokens: int) -> None:
    """With max_steps the tokens are those of so many batches of pieces, not of whole documents."""
    hyper = {"max_steps": 3, "batch_size": 4, "micro_batch_size": 4, "max_seq_length": 64}
    spec, found = asked({"language_modeling": {"hyperparameters": hyper}}, 50, tokens)
    pieces = CorpusReader(FourBytes(), 64).pieces({"text": "word" * tokens})
    assert isinstance(pieces, tuple)
    assert plan_of(spec, 50).max_steps == found.steps
    assert round(3 * 4 * tokens / len(pieces)) == found.tokens


@pytest.mark.parametrize("more", [{}, {"n_epochs": 3}, {"batch_size": 32}, {"max_steps": 7}])
@pytest.mark.parametrize("prompts", [4, 7, 21, 64])
def test_reinforcement_counts_answers(more: dict[str, int], prompts: int) -> None:
    """A batch holds answers, eight of each prompt; each is as long as its prompt and the longest answer at most."""
    method = {"reinforcement": {"max_new_tokens": 32, "hyperparameters": {"batch_size": 16, **more}}}
    spec, found = asked(method, prompts, 20)
    settings = read_settings(reinforcement.Settings, spec.settings)
    assert reinforcement._plan(spec, settings, prompts).max_steps == found.steps
    assert found.steps * spec.hyperparameters.batch_size * (20 + 32) == found.tokens
