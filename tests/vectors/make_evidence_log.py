# SPDX-License-Identifier: Apache-2.0
"""Makes tests/vectors/evidence/head-*.json and restored-*.json: heads of a log, judged by what was remembered before.

The form is that of make_evidence.py, whose roster is used.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.evidence.checkpoint import Checkpoint, sign_checkpoint
from cloister.evidence.merkle import consistency_proof, leaf_hash, root_hash
from cloister.evidence.note import NoteSigner
from cloister.evidence.roster import ROSTER_TYPE, Roster
from cloister.evidence.signatures import SigningKey, Statement

HERE = Path(__file__).parent / "evidence"
NOW = 1_800_000_000
Case = tuple[dict[str, object], str]
ROOT = SigningKey(bytes([1]) * 32)
LOG = NoteSigner("vectors.example/log", Ed25519PrivateKey.from_private_bytes(bytes([6]) * 32))
FORGER = NoteSigner("vectors.example/log", Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32))


def roster() -> Roster:
    return Roster.parse((HERE / "roster.payload.json").read_bytes().rstrip(b"\n"))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def head_cases() -> dict[str, Case]:
    leaves = [leaf_hash(b"entry %d" % n) for n in range(9)]
    other = [leaf_hash(b"other %d" % n) for n in range(9)]

    def head(of: list[bytes], size: int) -> Checkpoint:
        return Checkpoint(LOG.name, size, root_hash(of[:size]))

    def case(note: bytes, proof: list[bytes], expect: str, remembered: Checkpoint) -> Case:
        inputs: dict[str, object] = {"note": b64(note), "proof": [b64(p) for p in proof]}
        return {**inputs, "remembered": remembered.to_text()}, expect

    grown, proof = sign_checkpoint(head(leaves, 9), LOG), consistency_proof(leaves, 5, 9)
    old = head(leaves, 5)
    return {
        "good": case(grown, proof, "ok", old),
        "rolled-back": case(sign_checkpoint(head(leaves, 4), LOG), [], "ROLLBACK", old),
        "forked": case(sign_checkpoint(head(other, 9), LOG), consistency_proof(other, 5, 9), "FORK", old),
        "forked-same-size": case(sign_checkpoint(head(other, 5), LOG), [], "FORK", old),
        "short-proof": case(grown, proof[:-1], "TAMPERED", old),
        "foreign": case(sign_checkpoint(head(leaves, 9), FORGER), proof, "BAD_SIGNATURE", old),
    }


def restored_cases() -> dict[str, Case]:
    """A roster is accepted, then a head of the log is shown: what was remembered before decides."""
    kept = [leaf_hash(b"entry %d" % n) for n in range(9)]
    lost = [*kept[:5], *(leaf_hash(b"lost %d" % n) for n in range(5, 9))]

    def note(of: list[bytes], size: int, signer: NoteSigner = LOG) -> bytes:
        return sign_checkpoint(Checkpoint(LOG.name, size, root_hash(of[:size])), signer)

    def signed(heads: list[bytes]) -> Statement:
        changed = dataclasses.replace(roster(), log_restored=tuple(head.decode() for head in heads))
        return ROOT.sign(ROSTER_TYPE, changed.to_payload())

    def case(
        statement: Statement,
        expect: str,
        remembered: bytes,
        shown: bytes,
        proof: list[bytes],
        accepted: int = 0,
    ) -> Case:
        inputs: dict[str, object] = {"statement": b64(statement.to_bytes()), "root_public": b64(ROOT.public)}
        inputs |= {"remembered": b64(remembered), "accepted": accepted}
        return {**inputs, "note": b64(shown), "proof": [b64(p) for p in proof]}, expect

    once, grown = signed([note(kept, 5)]), note(kept, 9)
    ahead, from_five = note(lost, 9), consistency_proof(kept, 5, 9)
    empty = roster().to_payload().replace(b'"vkey"', b'"restored":[],"vkey"')
    return {
        "good": case(once, "ok", ahead, grown, from_five),
        "never-said": case(signed([]), "FORK", ahead, grown, []),
        "shorter-never-said": case(signed([]), "ROLLBACK", ahead, note(kept, 5), []),
        "accepted-before": case(once, "FORK", ahead, grown, [], accepted=1),
        "second": case(signed([note(kept, 3), note(kept, 5)]), "ok", ahead, grown, from_five, accepted=1),
        "nothing-lost": case(once, "ok", note(kept, 4), grown, consistency_proof(kept, 4, 9)),
        "first-contact": case(once, "ok", b"", grown, []),
        "behind-it": case(once, "ROLLBACK", ahead, note(kept, 4), []),
        "another-branch": case(once, "FORK", ahead, note([*kept[:4], *lost[5:]], 5), []),
        "foreign": case(signed([note(kept, 5, FORGER)]), "BAD_SIGNATURE", ahead, grown, from_five),
        "empty": case(ROOT.sign(ROSTER_TYPE, empty), "BAD_FORMAT", ahead, grown, from_five),
    }


CHECKS: dict[str, Callable[[], dict[str, Case]]] = {"head": head_cases, "restored": restored_cases}


def main() -> None:
    """Write every vector."""
    for check, cases in CHECKS.items():
        for name, (inputs, expect) in cases().items():
            vector = {"check": check, "name": name, "now": NOW, "inputs": inputs, "expect": expect}
            (HERE / f"{check}-{name}.json").write_text(json.dumps(vector, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
