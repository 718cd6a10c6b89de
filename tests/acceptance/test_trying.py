# SPDX-License-Identifier: Apache-2.0
"""The commands of a team's day: tune, compare, look at curves, try a model, with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live_site import LiveSite, live_site
from tiny_models import chat_rows, write_llama


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    """A site with a tiny language model and rows to learn from."""
    (tmp_path / "model").mkdir()
    write_llama(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_bytes(chat_rows(60))
    with live_site(tmp_path / "site") as running:
        words = ("--name", "base", "--licence", "none", "--source", "made here")
        imported = running.said("alice", "cloister", "model", "import", str(tmp_path / "model"), *words)
        assert 0 == imported.status, imported.err
        pushed = running.said(
            "alice", "cloister", "dataset", "push", str(tmp_path / "rows.jsonl"), "--name", "rows", "--purpose", "echo"
        )
        assert 0 == pushed.status, pushed.err
        yield running


def tuned(site: LiveSite, name: str, rate: str) -> str:
    """A job that `cloister tune` made, and that has ended."""
    words = ("--base", "base", "--data", "rows", "--method", "sft", "--name", name)
    settings = ("--set", f"learning_rate={rate}", "--set", "max_seq_length=64", "--set", "n_epochs=2")
    said = site.said("alice", "cloister", "tune", *words, *settings)
    assert 0 == said.status, said.err
    job_id = said.out.strip()
    watched = site.said("alice", "cloister", "job", "watch", job_id)
    assert 0 == watched.status, f"{watched.err}\n{site.logs()}"
    return job_id


@pytest.mark.timeout(600)  # four jobs one after the other, on a machine that may be busy
def test_a_teams_day(site: LiveSite, tmp_path: Path) -> None:
    """Two jobs without a specification's file, side by side, their curves, a page, and a question to the base model."""
    slow, quick = tuned(site, "slow", "0.0001"), tuned(site, "quick", "0.01")
    compared = site.said("alice", "cloister", "job", "compare", slow, quick)
    assert 0 == compared.status, compared.err
    assert "method.supervised.hyperparameters.learning_rate" in compared.out
    table = site.said("alice", "cloister", "job", "compare", slow, quick, "--json").json()
    losses = [job["metrics"]["eval_loss"] for job in table["jobs"]]  # type: ignore[attr-defined]
    assert losses[1] < losses[0]
    curve = site.said("alice", "cloister", "job", "show", quick, "--curve")
    assert "training loss" in curve.out, curve.err
    assert any("⠀" <= char <= "⣿" for char in curve.out)
    report = site.said("alice", "cloister", "job", "report", quick, "-o", str(tmp_path / "report"))
    assert 0 == report.status, report.err
    assert {"report.html", "report.json", "curve.svg", "curve.png"} == {p.name for p in (tmp_path / "report").iterdir()}
    tried = site.said("alice", "cloister", "model", "try", "base", "alpha bravo", "--max-new-tokens", "3", "--json")
    assert 0 == tried.status, f"{tried.err}\n{site.logs()}"
    assert isinstance(tried.json()["answer"], str)
    refused = site.said("alice", "cloister", "model", "try", "quick", "alpha")
    assert 0 != refused.status
    assert "released" in refused.err.lower()
    left = site.said("alice", "cloister", "dataset", "list")
    assert not any(line.startswith("try-") and "ready" in line for line in left.out.splitlines())
