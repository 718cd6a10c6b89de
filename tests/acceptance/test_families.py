# SPDX-License-Identifier: Apache-2.0
"""One method of each family by the command line and real processes, on tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from live_site import LiveSite, live_site
from tiny_models import WORDS, write_bert, write_llama

PAIRS = [(WORDS[n % 10], WORDS[(3 * n + 1) % 10]) for n in range(48)]
ROWS: dict[str, list[dict[str, object]]] = {
    "texts": [{"text": f"{a} {b} {a}"} for a, b in PAIRS],
    "answers": [{"prompt": f"{a} {b}", "completion": f" {a}"} for a, b in PAIRS],
    "choices": [{"prompt": f"{a} {b}", "chosen": f" {a}", "rejected": " system"} for a, b in PAIRS],
    "checks": [{"prompt": f"{a} {b} {n % 7}", "answer": a} for n, (a, b) in enumerate(PAIRS)],
    "tags": [{"tokens": [a, b], "tags": ["B-X" if a == "alpha" else "O", "O"]} for a, b in PAIRS],
    "meanings": [{"query": f"{a} {b}", "positive": f"{b} {a} user"} for a, b in PAIRS],
    "documents": [{"id": str(n), "text": f"{a} {b} delta echo"} for n, (a, b) in enumerate(PAIRS)],
}
SHORT = ("--set", "n_epochs=1", "--set", "max_seq_length=32")
FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "cpt": ("llama", "texts", SHORT),
    "pretrain": ("llama", "texts", (*SHORT, "--set", "vocabulary_size=300")),
    "dpo": ("llama", "choices", SHORT),
    "distill": ("llama", "texts", (*SHORT, "--with", "llama")),
    "icl": ("llama", "answers", ("--set", "max_seq_length=48", "--set", "max_new_tokens=4", "--set", "shots=2")),
    "rag": ("llama", "documents", ("--with", "bert", "--set", "chunk_tokens=8", "--set", "overlap=2")),
    "ner": ("bert", "tags", SHORT),
    "embed": ("bert", "meanings", SHORT),
    "reward": ("bert", "choices", SHORT),
    "grpo": ("llama", "checks", ("--set", "max_steps=2", "--set", "max_new_tokens=3", "--set", "generations=4")),
}
LONG = {"distill", "icl", "embed", "reward", "pretrain"}
"""Run by `make test-all` alone: what they do with layers and second models, rag, grpo and ner do as well; pretrain
takes the way of cpt, with whole weights."""
KINDS = {
    "icl": "LAYER_KIND_DEMONSTRATIONS",
    "rag": "LAYER_KIND_RETRIEVAL_INDEX",
    "pretrain": "LAYER_KIND_MERGED_WEIGHTS",
}


def done(site: LiveSite, *command: str) -> str:
    said = site.said("alice", "cloister", *command)
    assert 0 == said.status, f"{said.err}\n{site.logs()}"
    return said.out.strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSite]:
    """A site with both models and all rows."""
    folder = tmp_path_factory.mktemp("families")
    with live_site(folder / "site") as running:
        for name, write in (("llama", write_llama), ("bert", write_bert)):
            (folder / name).mkdir()
            write(folder / name)
            words = ("--name", name, "--licence", "none", "--source", "made here")
            done(running, "model", "import", str(folder / name), *words)
        for name, rows in ROWS.items():
            path = folder / f"{name}.jsonl"
            path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
            done(running, "dataset", "push", str(path), "--name", name, "--purpose", "testing")
        yield running


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FAMILIES]
)
def test_a_method_makes_a_candidate(site: LiveSite, method: str) -> None:
    """`cloister tune` queues the job; a worker runs it in its sandbox, and its result is a verified candidate."""
    base, data, more = FAMILIES[method]
    job_id = done(site, "tune", "--base", base, "--data", data, "--method", method, "--name", f"by-{method}", *more)
    done(site, "job", "watch", job_id)
    made = json.loads(done(site, "model", "show", f"by-{method}", "--json"))
    assert "MODEL_VERSION_STATE_CANDIDATE" == made["state"]
    assert KINDS.get(method, "LAYER_KIND_ADAPTER") == made["layers"][-1]["kind"]
    assert made["dossier"]["metrics_after"]
