# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of stacks: a model that answers from what stands before a question, and an encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from copying_model import write_copier, write_word_encoder
from stack_jobs import Bench


@pytest.fixture(scope="session")
def copier_dir(tmp_path_factory) -> Path:
    return write_copier(tmp_path_factory.mktemp("copier"))


@pytest.fixture(scope="session")
def word_encoder_dir(tmp_path_factory) -> Path:
    return write_word_encoder(tmp_path_factory.mktemp("word-encoder"))


@pytest.fixture
def bench(copier_dir, word_encoder_dir, tmp_path, new_recorder) -> Bench:
    return Bench(copier_dir, tmp_path, new_recorder, word_encoder_dir)
