# SPDX-License-Identifier: Apache-2.0
"""What an admin's doctor makes of what a site shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloister.admin.doctor import SILENT_SECONDS, Facts, diagnose
from cloister.api.v1 import operations_pb2
from cloister.evidence.policy import Policy
from cloister.findings import exit_status

NOW = 1_800_000_000
DAY = 24 * 3600
YEAR = 365 * DAY


def host(name: str, **changed: object) -> operations_pb2.Worker:
    """One that works as it should."""
    worker = operations_pb2.Worker(
        host=name, pool="default", mode=operations_pb2.WORKER_MODE_ACTIVE, sandboxed=True, version="1.0"
    )
    worker.last_seen.FromSeconds(NOW - 5)
    for field, value in changed.items():
        if field == "last_seen":
            worker.last_seen.FromSeconds(value)  # type: ignore[arg-type]
        else:
            setattr(worker, field, value)
    return worker


def policy(expires_at: int) -> Policy:
    return Policy("auto", 3, True, 0, (), False, NOW - DAY, expires_at)


def usage(limit: int, used: int) -> operations_pb2.TeamUsage:
    return operations_pb2.TeamUsage(
        team="icu", limits=operations_pb2.Quota(queued_jobs=limit), used=operations_pb2.Quota(queued_jobs=used)
    )


GOOD = Facts(
    site="hospital.example",
    certificate_ends=NOW + YEAR,
    roster_version=7,
    roster_ends=NOW + YEAR,
    server_version="1.0",
    policy=policy(NOW + YEAR),
    maintenance=None,
    workers=(host("gpu-1"), host("gpu-2")),
    usage=(usage(10, 8),),
    claims=0,
)


def levels(facts: Facts) -> dict[str, list[str]]:
    """Of each check, what is not fine; nothing for a check that is."""
    found = {d.check: [str(f.level) for f in d.findings if f.level != "ok"] for d in diagnose(facts, NOW)}
    return {check: worst for check, worst in found.items() if worst}


def test_a_site_in_order_is_all_fine() -> None:
    """Nothing but ok, and status 0."""
    assert {} == levels(GOOD)
    assert 0 == exit_status(diagnose(GOOD, NOW))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"certificate_ends": NOW + DAY}, {"certificate": ["warning"]}),
        ({"roster_ends": NOW + DAY}, {"roster": ["warning"]}),
        ({"roster_ends": NOW}, {"roster": ["failure"]}),
        ({"policy": policy(NOW + DAY)}, {"policy": ["warning"]}),
        ({"policy": "none is in force"}, {"policy": ["failure"]}),
        ({"maintenance": operations_pb2.Maintenance(reason="new disks")}, {"maintenance": ["warning"]}),
        ({"claims": 2}, {"enrolment": ["warning"]}),
        ({"usage": (usage(10, 9),)}, {"quotas": ["warning"]}),
        ({"workers": ()}, {"hosts": ["failure"]}),
        ({"workers": (host("gpu-1"), host("gpu-2", last_seen=NOW - SILENT_SECONDS - 1))}, {"hosts": ["warning"]}),
        ({"workers": (host("gpu-1"), host("gpu-2", version="0.9"))}, {"hosts": ["warning"]}),
        ({"workers": (host("gpu-1"), host("gpu-2", sandboxed=False))}, {"hosts": ["warning"]}),
        (
            {"workers": (host("gpu-1", mode=operations_pb2.WORKER_MODE_CORDONED),)},
            {"hosts": ["warning", "failure"]},
        ),
        ({"workers": (host("gpu-1"), host("gpu-2", pool="large", last_seen=0))}, {"hosts": ["warning", "failure"]}),
    ],
)
def test_what_is_wrong_is_found(changed: dict[str, object], expected: dict[str, list[str]]) -> None:
    """Each fault is found by its own check alone, and every finding that is not fine says what to do."""
    facts = replace(GOOD, **changed)  # type: ignore[arg-type]
    assert expected == levels(facts)
    assert all(f.remedy for d in diagnose(facts, NOW) for f in d.findings if f.level != "ok")


def test_words_of_an_admin_are_not_repeated() -> None:
    """A maintenance is told without its reason, which people write."""
    facts = replace(GOOD, maintenance=operations_pb2.Maintenance(reason="Mrs Smith's data"))
    assert all("Smith" not in f.message for d in diagnose(facts, NOW) for f in d.findings)
