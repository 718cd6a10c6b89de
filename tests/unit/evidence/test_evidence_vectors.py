# SPDX-License-Identifier: Apache-2.0
"""Every evidence vector is judged as its file says."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.evidence.authorisation import Authorisation, verify_authorisation
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.figures import verify_figures
from cloister.evidence.manifest import SealedObject, verify_object
from cloister.evidence.opening import verify_head
from cloister.evidence.release import verify_release
from cloister.evidence.restoration import LogMemory, after_restorations
from cloister.evidence.result import Result, verify_result
from cloister.evidence.roster import Roster, verify_roster
from cloister.evidence.signatures import Statement

VECTORS = Path(__file__).parents[2] / "vectors" / "evidence"
FILES = sorted(path for path in VECTORS.glob("*-*.json"))
ROSTER = Roster.parse((VECTORS / "roster.payload.json").read_bytes().rstrip(b"\n"))


class Inputs:
    """The inputs of one vector, decoded."""

    def __init__(self, values: dict[str, object], now: int) -> None:
        self.values = values
        self.now = now

    def raw(self, name: str) -> bytes:
        return base64.b64decode(str(self.values[name]))

    def statement(self, name: str = "statement") -> Statement:
        return Statement.from_bytes(self.raw(name))

    def text(self, name: str) -> str:
        return str(self.values[name])


def check_roster(i: Inputs) -> None:
    verify_roster(i.statement(), i.raw("root_public"), seen_version=int(i.text("seen_version")), now=i.now)


def check_object(i: Inputs) -> None:
    verify_object(SealedObject(i.raw("manifest"), i.statement("trailer")), ROSTER, now=i.now)


def check_authorisation(i: Inputs) -> None:
    verify_authorisation(i.statement(), i.raw("spec"), ROSTER, now=i.now)


def check_result(i: Inputs) -> None:
    digest = i.text("authorisation_sha256")
    verify_result(i.statement(), ROSTER, kind=i.text("kind"), authorisation_sha256=digest, now=i.now)


def check_figures(i: Inputs) -> None:
    authorisation = Authorisation.parse(i.statement("authorisation").payload)
    verify_figures(i.raw("figures"), Result.parse(i.statement().payload), authorisation)


def check_release(i: Inputs) -> None:
    recipient = i.text("recipient_key_id")
    verify_release(i.statement(), i.statement("request"), i.raw("wrap"), ROSTER, recipient_key_id=recipient, now=i.now)


def check_head(i: Inputs) -> None:
    proof = i.values["proof"]
    assert isinstance(proof, list)
    hashes = tuple(base64.b64decode(p) for p in proof)
    verify_head(i.raw("note"), hashes, ROSTER, Checkpoint.parse(i.text("remembered")))


def check_restored(i: Inputs) -> None:
    roster = verify_roster(i.statement(), i.raw("root_public"), seen_version=0, now=i.now)
    memory = after_restorations(LogMemory(i.raw("remembered").decode(), int(i.text("accepted"))), roster)
    proof = i.values["proof"]
    assert isinstance(proof, list)
    verify_head(i.raw("note"), tuple(base64.b64decode(p) for p in proof), roster, memory.head())
    assert len(roster.log_restored) == memory.restorations


CHECKS: dict[str, Callable[[Inputs], None]] = {
    "roster": check_roster,
    "object": check_object,
    "authorisation": check_authorisation,
    "result": check_result,
    "figures": check_figures,
    "release": check_release,
    "head": check_head,
    "restored": check_restored,
}


def verdict(check: Callable[[Inputs], None], inputs: Inputs) -> str:
    try:
        check(inputs)
    except EvidenceError as error:
        return error.reason
    return "ok"


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_vector(path: Path) -> None:
    """The verdict is the one in the file."""
    vector = json.loads(path.read_text())
    assert vector["expect"] == verdict(CHECKS[vector["check"]], Inputs(vector["inputs"], vector["now"]))


def test_there_are_vectors_for_every_check() -> None:
    """No check lost its vectors."""
    assert set(CHECKS) == {path.stem.partition("-")[0] for path in FILES}
