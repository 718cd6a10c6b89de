# SPDX-License-Identifier: Apache-2.0
"""Requests of any content to a key agent: an answer or a refusal with its reason, never a defect, never a key used."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import Job, Site, frozen_memory
from cloister_workers.keyagent import documents
from cloister_workers.keyagent.memory import Memory
from cloister_workers.keyagent.protocol import Frame, encode
from cloister_workers.keyagent.server import KeyAgent
from cloister_workers.keyagent.vault import load_vault
from fuzzing import examples
from json_strategies import Edit, Json, edited, edits, values
from keyagent_process import write_directory

NOW = 1_800_000_000
OPS = ("status", "update_roster", "open_job", "decrypt", "seal", "open_release", "close")


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(NOW)


@pytest.fixture(scope="module")
def agent(site: Site, tmp_path_factory: pytest.TempPathFactory) -> KeyAgent:
    folder = write_directory(tmp_path_factory.mktemp("host"), site).keyagent
    return KeyAgent(load_vault(folder), Memory(folder), lambda: site.now, lambda _: None)


class Requests:
    """Good requests, each with what it needs: jobs and releases that no other example opened, on the same objects."""

    def __init__(self, site: Site, agent: KeyAgent) -> None:
        self.site, self.agent = site, agent
        self.roster = documents.statement_text(site.sign_roster())
        self.host = site.holder("host-1")
        self.model, self.training, self.export = site.model(), site.dataset(), site.export()

    def _job(self) -> Job:
        return self.site.job(model=self.model, training=self.training)

    def body(self, op: str) -> dict[str, Json]:
        makers: dict[str, Callable[[], dict[str, Json]]] = {
            "update_roster": lambda: {"roster": self.roster},
            "open_job": lambda: self._opening(self._job()),
            "open_release": self._release,
            "close": lambda: {"session": self._session(self._job())},
            "decrypt": self._decrypt,
            "seal": self._seal,
        }
        return {"op": op, **makers.get(op, dict)()}

    def _since(self) -> int:
        size = self.agent.answer(Frame({"op": "status"}, ()), set())["checkpoint_size"]
        assert isinstance(size, int)
        return size

    def _opening(self, job: Job) -> dict[str, Json]:
        opening = self.site.opening(job, since=self._since())
        return {"roster": self.roster, "opening": documents.job_opening_table(opening), "sandboxed": True}  # type: ignore[dict-item]  # a table of JSON

    def _session(self, job: Job) -> str:
        answer = self.agent.answer(Frame({"op": "open_job", **self._opening(job)}, ()), set())
        return str(answer["session"])

    def _decrypt(self) -> dict[str, Json]:
        job = self._job()
        wrap = encode(job.inputs[0].wrap_for(self.host))
        return {"session": self._session(job), "object_id": job.inputs[0].id, "wrap": wrap}

    def _seal(self) -> dict[str, Json]:
        figures: dict[str, Json] = {"metrics": {"eval_accuracy": 0.9}, "metrics_before": {"eval_accuracy": 1}}
        return {"session": self._session(self._job()), "kind": "state", "step": 1, "figures": "", **figures}

    def _release(self) -> dict[str, Json]:
        job = self._job()
        result = self.site.result(job, self.export)
        opening = self.site.release(job, self.export, result, since=self._since())
        table = documents.release_opening_table(opening)
        return {"roster": self.roster, "opening": table, "wrap": encode(self.export.wrap_for(self.host))}  # type: ignore[dict-item]  # a table of JSON


@pytest.fixture(scope="module")
def good(site: Site, agent: KeyAgent) -> Requests:
    return Requests(site, agent)


def answered(agent: KeyAgent, body: dict[str, Json]) -> dict[str, object]:
    """The answer to a request that brings two descriptors; a session that it opened is closed again."""
    mine: set[str] = set()
    source, target = frozen_memory(b"no bundle"), os.memfd_create("target")
    frame = Frame(dict(body), (source, target))
    try:
        return agent.answer(frame, mine)
    finally:
        frame.close()
        for session in mine:
            agent.close(session)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_good_request(agent: KeyAgent, good: Requests, op: str) -> None:
    """What is changed below starts from requests that are granted, or fail at their ciphertext alone."""
    expected = {"decrypt": "DIGEST_MISMATCH", "seal": "BAD_BUNDLE"}.get(op)
    assert expected == answered(agent, good.body(op)).get("error")


@pytest.mark.parametrize("op", OPS)
def test_no_request_brings_down_the_key_agent(agent: KeyAgent, good: Requests, op: str) -> None:
    """Whatever an agent, or a control plane through it, says: it is answered, or refused for a reason."""

    @examples(25)
    @given(edits(most=3))
    def changed(several: list[Edit]) -> None:
        assert "INTERNAL" != answered(agent, edited(good.body(op), several)).get("error")

    @examples(10)
    @given(st.dictionaries(st.sampled_from(["roster", "opening", "session", "wrap"]), values(), max_size=4))
    def anything(body: dict[str, Json]) -> None:
        assert "INTERNAL" != answered(agent, {"op": op, **body}).get("error")

    changed()
    anything()
