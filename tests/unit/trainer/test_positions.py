# SPDX-License-Identifier: Apache-2.0
"""How long a sequence may be, by what a model has positions for."""

from __future__ import annotations

from types import SimpleNamespace

import transformers

from cloister_workers.trainer.model import longest_sequence


def test_positions_that_roberta_never_uses_are_left_out():
    """A sequence is as long as the table allows behind the padding token's number, or as tokenizer and wish say."""
    tokenizer = SimpleNamespace(model_max_length=10**30)
    roberta, bert = transformers.RobertaConfig(max_position_embeddings=66), transformers.BertConfig()
    assert [64, 20] == [longest_sequence(roberta, tokenizer, wanted) for wanted in (100, 20)]
    assert [512, 100] == [longest_sequence(bert, tokenizer, wanted) for wanted in (1000, 100)]
    assert 9 == longest_sequence(bert, SimpleNamespace(model_max_length=9), 100)
    assert 1000 == longest_sequence(transformers.T5Config(), tokenizer, 1000)
