# SPDX-License-Identifier: Apache-2.0
"""Makes tests/vectors/evidence/*.json: signed documents that any implementation can judge.

Each file says what to check (`check`), with what (`inputs`; DSSE envelopes in base64), and what comes out (`expect`:
"ok", or the reason of the refusal).  Keys come from fixed seeds and Ed25519 is deterministic: no run differs.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.evidence.authorisation import AUTHORISATION_TYPE, Authorisation, ObjectReference
from cloister.evidence.figures import Figure, Figures, Finding
from cloister.evidence.manifest import Manifest, Trailer
from cloister.evidence.note import NoteSigner
from cloister.evidence.release import RELEASE_TYPE, Release, ReleaseRequest
from cloister.evidence.result import RESULT_TYPE, Result
from cloister.evidence.roster import ROSTER_TYPE, Host, KeyRecord, Person, Roster, Team
from cloister.evidence.signatures import Signature, SigningKey, Statement

HERE = Path(__file__).parent / "evidence"
NOW, DAY = 1_800_000_000, 86_400
Case = tuple[dict[str, object], str]


def key(n: int) -> SigningKey:
    return SigningKey(bytes([n]) * 32)


ROOT, ALICE, ALICE_OLD, MALLORY, HOST = key(1), key(2), key(3), key(4), key(5)
LOG = NoteSigner("vectors.example/log", Ed25519PrivateKey.from_private_bytes(bytes([6]) * 32))
SPEC = b'{"training_dataset":"d-1"}'
MORE_SPEC = b'{"auxiliary_model":"j-0","replay_dataset":"d-2","training_dataset":"d-1"}'
AUXILIARY = b'"auxiliary":{"id":"m-2","trailer_sha256":"' + b"ee" * 32 + b'"},'
REPORT_SPEC = b'{"evaluation_dataset":"d-3"}'


def roster() -> Roster:
    alice = Person(
        id="alice",
        team="ward",
        roles=("member",),
        signing_keys=(
            KeyRecord(ALICE.public, NOW - 90 * DAY),
            KeyRecord(ALICE_OLD.public, NOW - 400 * DAY, retired_at=NOW - 90 * DAY),
        ),
        tls_sha256=("00" * 32,),
        recipient="age1pqalice",
    )
    host = Host("gpu-1", "default", (KeyRecord(HOST.public, NOW - 90 * DAY),), ("11" * 32,), "age1pqhost")
    return Roster(
        site="vectors.example",
        version=7,
        issued_at=NOW - DAY,
        expires_at=NOW + 30 * DAY,
        minimum_client_version="0.1.0",
        log_origin=LOG.name,
        log_vkey=LOG.vkey,
        policy_keys=(),
        people=(alice,),
        teams=(Team("ward", "age1pqrecovery"),),
        hosts=(host,),
    )


MANIFEST = Manifest(
    kind="dataset",
    id="d-1",
    name="tickets",
    owner="alice",
    team="ward",
    pool="default",
    purposes=("triage",),
    media_type="application/jsonl",
    created_at=NOW - DAY,
    expires_at=NOW + 10 * DAY,
)


def trailer_of(manifest: Manifest) -> Trailer:
    return Trailer(hashlib.sha256(manifest.to_payload()).hexdigest(), "ab" * 32, 16_456, 16_384, rows=100)


AUTHORISATION = Authorisation(
    job_id="j-1",
    member="alice",
    team="ward",
    purpose="triage",
    pool="default",
    spec_sha256=hashlib.sha256(SPEC).hexdigest(),
    policy_sha256="cd" * 32,
    model=ObjectReference("m-1", "ef" * 32),
    model_layers=(),
    training=ObjectReference("d-1", "12" * 32),
    validation=None,
    evaluation=None,
    max_attempts=3,
    created_at=NOW - 100,
    expires_at=NOW + DAY,
)
MORE = dataclasses.replace(
    AUTHORISATION,
    spec_sha256=hashlib.sha256(MORE_SPEC).hexdigest(),
    model_layers=(ObjectReference("o-2", "21" * 32), ObjectReference("o-3", "31" * 32)),
    replay=ObjectReference("d-2", "22" * 32),
    auxiliary=ObjectReference("m-2", "ee" * 32),
    auxiliary_layers=(ObjectReference("o-4", "41" * 32),),
)
ROWS, REPORT_SHA256 = ObjectReference("d-3", "32" * 32), hashlib.sha256(REPORT_SPEC).hexdigest()
REPORT = dataclasses.replace(AUTHORISATION, spec_sha256=REPORT_SHA256, training=None, evaluation=ROWS)
RESULT = Result(
    kind="export",
    job_id="j-1",
    authorisation_sha256=hashlib.sha256(AUTHORISATION.to_payload()).hexdigest(),
    host="gpu-1",
    attempt=1,
    step=50,
    object_id="o-1",
    trailer_sha256="34" * 32,
    files_sha256="56" * 32,
    metrics={"eval_accuracy": "0.9"},
    metrics_before={"eval_accuracy": "0.1"},
    sandboxed=True,
    created_at=NOW - 50,
)
FIGURES = Figures(
    job_id="j-1",
    spec_sha256=AUTHORISATION.spec_sha256,
    policy_sha256="cd" * 32,
    attempt=1,
    figures=(Figure(0, "measure", 0, 0, 0, 400, 200, {"before": "0.25", "after": "0.04", "bar": "0.02"}),),
    findings=(Finding(0, "level", "FAIL", "measure", 0, 0),),
    verdicts=("FAIL",),
)
REQUEST = ReleaseRequest(
    release_id="r-1",
    model_version="j-1",
    result_sha256="78" * 32,
    trailer_sha256="34" * 32,
    policy_sha256="cd" * 32,
    requester="alice",
    team="ward",
    recipient="alice",
    reason="go live",
    created_at=NOW - 40,
    expires_at=NOW + DAY,
).sign(ALICE)
WRAP = b"a wrap"
RELEASE = Release(
    release_id="r-1",
    request_sha256=REQUEST.digest,
    result_sha256="78" * 32,
    trailer_sha256="34" * 32,
    policy_sha256="cd" * 32,
    approvals_sha256=(),
    auto_release=True,
    recipient_key_id="9a" * 16,
    wrap_sha256=hashlib.sha256(WRAP).hexdigest(),
    host="gpu-1",
    created_at=NOW - 10,
)


def flip_payload(s: Statement) -> Statement:
    return dataclasses.replace(s, payload=s.payload[:-2] + bytes([s.payload[-2] ^ 1]) + s.payload[-1:])


def flip_signature(s: Statement) -> Statement:
    first = s.signatures[0]
    flipped = bytes([first.signature[0] ^ 1]) + first.signature[1:]
    return dataclasses.replace(s, signatures=(Signature(first.key_id, flipped),))


def with_field(payload: bytes, **extra: object) -> bytes:
    return json.dumps({**json.loads(payload), **extra}, sort_keys=True, separators=(",", ":")).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def roster_cases() -> dict[str, Case]:
    def case(statement: Statement, expect: str, seen: int = 7) -> Case:
        return {"statement": b64(statement.to_bytes()), "root_public": b64(ROOT.public), "seen_version": seen}, expect

    good = roster()

    def by_root(changed: Roster) -> Statement:
        return ROOT.sign(ROSTER_TYPE, changed.to_payload())

    signed = by_root(good)
    return {
        "good": case(signed, "ok"),
        "old": case(signed, "ROLLBACK", seen=8),
        "foreign": case(MALLORY.sign(ROSTER_TYPE, good.to_payload()), "BAD_SIGNATURE"),
        "expired": case(by_root(dataclasses.replace(good, expires_at=NOW)), "EXPIRED"),
        "future": case(by_root(dataclasses.replace(good, issued_at=NOW + 301)), "EXPIRED"),
        "payload-bit": case(flip_payload(signed), "BAD_SIGNATURE"),
        "signature-bit": case(flip_signature(signed), "BAD_SIGNATURE"),
        "unknown-field": case(ROOT.sign(ROSTER_TYPE, with_field(good.to_payload(), extra=1)), "BAD_FORMAT"),
        "other-type": case(ROOT.sign("application/vnd.cloister.policy+json", good.to_payload()), "BAD_FORMAT"),
        "spaces": case(ROOT.sign(ROSTER_TYPE, good.to_payload().replace(b":", b": ", 1)), "BAD_FORMAT"),
    }


def object_cases() -> dict[str, Case]:
    def case(manifest: Manifest, statement: Statement, expect: str) -> Case:
        return {"manifest": b64(manifest.to_payload()), "trailer": b64(statement.to_bytes())}, expect

    def changed(signer: SigningKey, expect: str, **changes: object) -> Case:
        manifest = dataclasses.replace(MANIFEST, **changes)  # type: ignore[arg-type]
        return case(manifest, trailer_of(manifest).sign(signer), expect)

    def layer(name: str, expect: str) -> Case:
        details = {"job_id": "j-1", "attempt": "1", "step": "50", "files_sha256": "56" * 32, name: "retrieval_index"}
        return changed(HOST, expect, kind="export", id="o-1", owner="gpu-1", details=details)

    appended = {"revision": "2", "appends_to": "d-0"}
    signed = trailer_of(MANIFEST).sign(ALICE)
    other_digest = signed.payload.replace(b"abab", b"abaa", 1)
    return {
        "good": case(MANIFEST, signed, "ok"),
        "retired-key-earlier": changed(ALICE_OLD, "ok", created_at=NOW - 100 * DAY),
        "retired-key-later": changed(ALICE_OLD, "BAD_SIGNATURE"),
        "key-not-yet": changed(ALICE, "BAD_SIGNATURE", created_at=NOW - 100 * DAY),
        "future": changed(ALICE, "EXPIRED", created_at=NOW + 301),
        "expired": changed(ALICE, "EXPIRED", expires_at=NOW - 300),
        "foreign": changed(MALLORY, "BAD_SIGNATURE"),
        "swapped-manifest": case(dataclasses.replace(MANIFEST, purposes=("ads",)), signed, "BINDING"),
        "swapped-owner": changed(ALICE, "NOT_ON_ROSTER", owner="bob"),
        "swapped-team": changed(ALICE, "BINDING", team="other"),
        "payload-bit": case(MANIFEST, dataclasses.replace(signed, payload=other_digest), "BAD_SIGNATURE"),
        "signature-bit": case(MANIFEST, flip_signature(signed), "BAD_SIGNATURE"),
        "revision": changed(ALICE, "ok", details=appended | {"appends_to_sha256": "57" * 32}),
        "revision-name": changed(ALICE, "BAD_FORMAT", details=appended | {"appends": "d-0"}),
        "layer": layer("layer", "ok"),
        "layer-unknown-detail": layer("shape", "BAD_FORMAT"),
    }


def authorisation_cases() -> dict[str, Case]:
    def case(statement: Statement, expect: str, spec: bytes = SPEC) -> Case:
        return {"statement": b64(statement.to_bytes()), "spec": b64(spec)}, expect

    def changed(expect: str, **changes: object) -> Case:
        return case(dataclasses.replace(AUTHORISATION, **changes).sign(ALICE), expect)  # type: ignore[arg-type]

    def raw(payload: bytes, spec: bytes) -> Case:
        return case(ALICE.sign(AUTHORISATION_TYPE, payload), "BAD_FORMAT", spec)

    signed = AUTHORISATION.sign(ALICE)
    more, report = MORE.to_payload(), REPORT.to_payload()
    return {
        "good": case(signed, "ok"),
        "good-second-model": case(MORE.sign(ALICE), "ok", MORE_SPEC),
        "good-no-training": case(REPORT.sign(ALICE), "ok", REPORT_SPEC),
        "no-rows": raw(with_field(report, evaluation=None), REPORT_SPEC),
        "replay-null": raw(with_field(more, replay=None), MORE_SPEC),
        "auxiliary-null": raw(with_field(more, auxiliary=None), MORE_SPEC),
        "no-auxiliary-layers": raw(with_field(more, auxiliary_layers=[]), MORE_SPEC),
        "layers-without-auxiliary": raw(more.replace(AUXILIARY, b""), MORE_SPEC),
        "swapped-spec": case(signed, "BINDING", spec=SPEC + b" "),
        "foreign": case(AUTHORISATION.sign(MALLORY), "BAD_SIGNATURE"),
        "expired": changed("EXPIRED", expires_at=NOW - 300),
        "future": changed("EXPIRED", created_at=NOW + 301),
        "other-team": changed("NOT_ON_ROSTER", team="other"),
        "stranger": changed("NOT_ON_ROSTER", member="eve"),
    }


def result_cases() -> dict[str, Case]:
    def case(statement: Statement, expect: str, authorised: str = "", kind: str = "export") -> Case:
        digest = authorised or RESULT.authorisation_sha256
        return {"statement": b64(statement.to_bytes()), "kind": kind, "authorisation_sha256": digest}, expect

    report, plain = dataclasses.replace(RESULT, kind="report").sign(HOST), RESULT.to_payload()

    return {
        "good": case(RESULT.sign(HOST), "ok"),
        "foreign": case(RESULT.sign(MALLORY), "BAD_SIGNATURE"),
        "other-authorisation": case(RESULT.sign(HOST), "BINDING", authorised="00" * 32),
        "checkpoint-as-result": case(dataclasses.replace(RESULT, kind="state").sign(HOST), "BINDING"),
        "report": case(report, "ok", kind="report"),
        "report-as-result": case(report, "BINDING"),
        "result-as-report": case(RESULT.sign(HOST), "BINDING", kind="report"),
        "other-kind": case(HOST.sign(RESULT_TYPE, with_field(plain, kind="dataset")), "BAD_FORMAT"),
        "future": case(dataclasses.replace(RESULT, created_at=NOW + 301).sign(HOST), "EXPIRED"),
        "with-report": case(debiased(FIGURES.to_payload()), "ok"),
        "empty-report": case(HOST.sign(RESULT_TYPE, with_field(plain, report_trailer_sha256="")), "BAD_FORMAT"),
    }


def debiased(figures: bytes, verdict: str = "-1.0") -> Statement:
    """The result of a de-biasing job that binds these figures."""
    return dataclasses.replace(
        RESULT,
        metrics={"eval_accuracy": "0.9", "debias_verdict": verdict},
        figures_sha256=hashlib.sha256(figures).hexdigest(),
        report_trailer_sha256="bc" * 32,
    ).sign(HOST)


def figures_cases() -> dict[str, Case]:
    def case(figures: bytes, expect: str, result: Statement | None = None) -> Case:
        statement, signed = result or debiased(figures), AUTHORISATION.sign(ALICE)
        inputs = {"statement": b64(statement.to_bytes()), "authorisation": b64(signed.to_bytes())}
        return {**inputs, "figures": b64(figures)}, expect

    good = FIGURES.to_payload()
    better = dataclasses.replace(FIGURES, verdicts=("PASS",)).to_payload()
    return {
        "good": case(good, "ok"),
        "several-runs": case(dataclasses.replace(FIGURES, verdicts=("FAIL", "PASS")).to_payload(), "ok"),
        "swapped": case(better, "BINDING", debiased(good)),
        "other-verdict": case(good, "BINDING", debiased(good, "1.0")),
        "no-verdict": case(good, "BINDING", RESULT.sign(HOST)),
        "other-job": case(dataclasses.replace(FIGURES, job_id="j-2").to_payload(), "BINDING"),
        "other-spec": case(dataclasses.replace(FIGURES, spec_sha256="00" * 32).to_payload(), "BINDING"),
        "other-policy": case(dataclasses.replace(FIGURES, policy_sha256="00" * 32).to_payload(), "BINDING"),
        "other-attempt": case(dataclasses.replace(FIGURES, attempt=2).to_payload(), "BINDING"),
        "unknown-word": case(good.replace(b'"measure"', b'"gesture"'), "BAD_FORMAT"),
        "unknown-field": case(with_field(good, note="hello"), "BAD_FORMAT"),
        "unjudged-run": case(good.replace(b'"run":0', b'"run":1'), "BAD_FORMAT"),
        "long-number": case(good.replace(b'"0.25"', b'"0.2500000000000000001"'), "BAD_FORMAT"),
    }


def release_cases() -> dict[str, Case]:
    def case(statement: Statement, expect: str, wrap: bytes = WRAP, recipient: str = "9a" * 16) -> Case:
        inputs: dict[str, object] = {"statement": b64(statement.to_bytes()), "request": b64(REQUEST.to_bytes())}
        return {**inputs, "wrap": b64(wrap), "recipient_key_id": recipient}, expect

    signed, plain = RELEASE.sign(HOST), RELEASE.to_payload()
    return {
        "good": case(signed, "ok"),
        "swapped-wrap": case(signed, "BINDING", wrap=b"another wrap"),
        "other-recipient": case(signed, "BINDING", recipient="bb" * 16),
        "foreign": case(RELEASE.sign(MALLORY), "BAD_SIGNATURE"),
        "other-request": case(dataclasses.replace(RELEASE, request_sha256="00" * 32).sign(HOST), "BINDING"),
        "exception": case(dataclasses.replace(RELEASE, exception=True).sign(HOST), "ok"),
        "exception-false": case(HOST.sign(RELEASE_TYPE, with_field(plain, exception=False)), "BAD_FORMAT"),
    }


CHECKS: dict[str, Callable[[], dict[str, Case]]] = {
    "roster": roster_cases,
    "object": object_cases,
    "authorisation": authorisation_cases,
    "result": result_cases,
    "figures": figures_cases,
    "release": release_cases,
}


def main() -> None:
    """Write every vector."""
    HERE.mkdir(exist_ok=True)
    (HERE / "roster.payload.json").write_bytes(roster().to_payload() + b"\n")
    for check, cases in CHECKS.items():
        for name, (inputs, expect) in cases().items():
            vector = {"check": check, "name": name, "now": NOW, "inputs": inputs, "expect": expect}
            (HERE / f"{check}-{name}.json").write_text(json.dumps(vector, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
