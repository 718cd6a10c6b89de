# SPDX-License-Identifier: Apache-2.0
"""Continued pre-training on real English: documentation strings of the Python standard library."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloister_workers.messages import EvaluationPhase, MetricName


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).resolve().parents[3] / "benchmarks/continued_pretraining.py"
    found = importlib.util.spec_from_file_location("continued_pretraining", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return SimpleNamespace(**vars(module))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_continued_pretraining_on_real_english(benchmark, tmp_path):
    """Docstrings of a domain that the base has not seen get likelier by going on with others of it; what is forgotten
    of the first ones is reported, and replay lessens it.
    """
    first, domain = benchmark.parts_of(500)
    base = benchmark.train(benchmark.write_config(tmp_path / "config", 64), first, benchmark.base_settings(2, 1024))
    before, after = base.change(MetricName.EVAL_PERPLEXITY)
    assert after < before / 2
    folder = benchmark.write_version(base.files, tmp_path / "base")
    settings = {"hyperparameters": {"learning_rate": 3e-3, "n_epochs": 2}}
    forgotten = {}
    for ratio in (0.0, 0.5):
        told = benchmark.train(folder, domain[:300], settings, first, ratio)
        before, after = told.change(MetricName.EVAL_PERPLEXITY)
        assert after < 0.8 * before
        forgotten[ratio] = told.measured[EvaluationPhase.AFTER][MetricName.FORGETTING]
    assert forgotten[0.5] < forgotten[0.0]
    assert forgotten[0.0] > 0.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_encoder_goes_on_as_a_masked_model(benchmark):
    """MiniLM with a fresh head predicts held-out masked words of docstrings better after training on others."""
    first, _ = benchmark.parts_of(60)
    told = benchmark.train(benchmark.minilm(), first, {"hyperparameters": {"learning_rate": 5e-4, "n_epochs": 2}})
    before, after = told.change(MetricName.EVAL_LOSS)
    assert after < before - 1
