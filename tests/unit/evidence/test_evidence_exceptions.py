# SPDX-License-Identifier: Apache-2.0
"""The de-biasing gate at release: what passes, what needs an exception, and who may give one."""

import json
from collections.abc import Callable

import pytest

from builders import Site
from cloister.evidence.canonical import canonical_bytes
from cloister.evidence.errors import FormatError, PolicyError
from cloister.evidence.policy import Policy, Rule
from cloister.evidence.release import (
    Approval,
    Release,
    ReleaseRequest,
    check_policy,
    verify_approval,
)
from cloister.evidence.result import Result
from debias_job import verdict_metrics

NOW = 1_800_000_000


@pytest.fixture
def site() -> Site:
    return Site(NOW)


def result(site: Site, verdict: str | None) -> Result:
    metrics = {"eval_accuracy": "0.9"} if verdict is None else verdict_metrics(verdict)
    return Result.parse(site.result(site.job(), site.export(), metrics=metrics).payload)


def approval(*, exception: bool, approver: str = "bob") -> Approval:
    return Approval("r-1", "0" * 64, approver, "fine", NOW, exception=exception)


PLAIN, EXCEPTED = approval(exception=False), approval(exception=True)


@pytest.mark.parametrize(
    ("verdict", "exception", "wanted", "approvals", "allowed"),
    [
        (None, False, 0, [], True),
        ("PASS", False, 0, [], True),
        ("PASS", False, 1, [PLAIN], True),
        ("PASS", False, 1, [], False),
        ("FAIL", False, 0, [], False),
        ("INCONCLUSIVE", False, 0, [], False),
        ("FAIL", False, 1, [PLAIN], False),
        ("FAIL", False, 0, [EXCEPTED], False),
        ("FAIL", True, 0, [], False),
        ("FAIL", True, 0, [PLAIN], False),
        ("FAIL", True, 0, [EXCEPTED], True),
        ("INCONCLUSIVE", True, 0, [EXCEPTED], True),
        ("FAIL", True, 1, [EXCEPTED], True),
        ("FAIL", True, 2, [EXCEPTED], False),
    ],
)
def test_the_gate_at_release(
    site: Site,
    verdict: str | None,
    exception: bool,
    wanted: int,
    approvals: list[Approval],
    allowed: bool,
) -> None:
    """A failed gate is lifted by a request and an approval that both say so, and by nothing else."""
    signed = Policy.parse(site.policy(auto_release=wanted == 0, approvals=wanted).payload)

    def check() -> None:
        check_policy(signed, result(site, verdict), approvals, request_id="r-1", exception=exception)

    if allowed:
        check()
    else:
        with pytest.raises(PolicyError):
            check()


def test_an_exception_lifts_no_rule(site: Site) -> None:
    """A bound that the policy sets on the verdict itself, or on anything else, holds for exceptions too."""
    signed = Policy.parse(site.policy(rules=(Rule("debias_verdict", at_least="1"),)).payload)
    with pytest.raises(PolicyError, match="at least 1"):
        check_policy(signed, result(site, "FAIL"), [EXCEPTED], request_id="r-1", exception=True)


@pytest.mark.parametrize(("asked", "approved"), [(True, False), (False, True)])
def test_an_approval_says_what_the_request_says(site: Site, asked: bool, approved: bool) -> None:
    """An approval of a plain release lifts no gate, and nobody consents to an exception that nobody asked for."""
    job, version = site.job(), site.export()
    opening = site.release(job, version, site.result(job, version), exception=asked)
    release_id = ReleaseRequest.parse(opening.request.payload).release_id
    given = Approval(release_id, opening.request.digest, "bob", "fine", NOW - 1, exception=approved)
    with pytest.raises(PolicyError, match="exception"):
        verify_approval(given.sign(site.people["bob"].signing), opening.request, site.roster, now=NOW)
    same = Approval(release_id, opening.request.digest, "bob", "fine", NOW - 1, exception=asked)
    assert verify_approval(same.sign(site.people["bob"].signing), opening.request, site.roster, now=NOW) == same


def make_request(site: Site, **changes: object) -> bytes:
    job, version = site.job(), site.export()
    return site.release(job, version, site.result(job, version), **changes).request.payload  # type: ignore[arg-type]


def make_approval(site: Site, **changes: object) -> bytes:
    fields = {"release_id": "r-1", "request_sha256": "0" * 64, "approver": "bob", "reason": "fine", "created_at": 1}
    return Approval(**{**fields, **changes}).to_payload()  # type: ignore[arg-type]  # fields of the document


def make_release(site: Site, **changes: object) -> bytes:
    digests = dict.fromkeys(("request_sha256", "result_sha256", "trailer_sha256", "policy_sha256"), "0" * 64)
    rest = {"approvals_sha256": (), "auto_release": True, "recipient_key_id": "k", "wrap_sha256": "0" * 64}
    fields = {"release_id": "r-1", **digests, **rest, "host": "host-1", "created_at": 1, **changes}
    return Release(**fields).to_payload()  # type: ignore[arg-type]  # fields of the document


@pytest.mark.parametrize(
    ("make", "parse"),
    [(make_request, ReleaseRequest.parse), (make_approval, Approval.parse), (make_release, Release.parse)],
)
def test_documents_without_an_exception_keep_their_bytes(
    site: Site, make: Callable[..., bytes], parse: Callable[[bytes], ReleaseRequest | Approval | Release]
) -> None:
    """The flag stands in a document only where it is true, so that each meaning has one form."""
    plain, marked = make(site), make(site, exception=True)
    assert b"exception" not in plain
    assert parse(plain).exception is False
    assert parse(marked).exception is True
    for value in (False, None, "yes", 1):
        with pytest.raises(FormatError):
            parse(canonical_bytes({**json.loads(plain), "exception": value}))


@pytest.mark.parametrize(("make", "parse"), [(make_request, ReleaseRequest.parse), (make_approval, Approval.parse)])
def test_an_exception_has_a_reason(
    site: Site, make: Callable[..., bytes], parse: Callable[[bytes], ReleaseRequest | Approval]
) -> None:
    """An exception without a reason is no exception."""
    with pytest.raises(FormatError, match="needs a reason"):
        parse(make(site, exception=True, reason="  "))
