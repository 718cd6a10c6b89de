# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin doctor`: what is wrong with a site, seen from an admin's own machine, and what to do about it.

What lies on a host (keys, disks, database, sandbox) is looked at there, by `cloister-server doctor` and
`cloister-worker doctor`; this one sees what the control plane shows to an admin, after verifying it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.options import home_option, now, open_client
from cloister.findings import Check, Diagnosis, Finding, as_json, as_text, exit_status, failure, of_expiry, ok, warning

if TYPE_CHECKING:
    from cloister.api.v1.operations_pb2 import Maintenance, TeamUsage, Worker
    from cloister.client import Client
    from cloister.evidence.policy import Policy

WARN_SECONDS = 14 * 24 * 3600
SILENT_SECONDS = 300
"""Hosts ask for work, or keep a lease, every few seconds."""
NEARLY = 0.9
"""Share of a quota."""
RESIGN = "have the custodian run: cloister-admin roster sign; then: cloister-admin roster publish"
RENEW = "cloister renew; where the control plane issues none, ask the custodian: docs/how-to/rotate-keys.md"
RESIGN_POLICY = "have compliance run: cloister-admin policy sign; then: cloister-admin policy publish"


@dataclass(frozen=True)
class Facts:
    """What a verified site shows to an admin; times in Unix seconds."""

    site: str
    certificate_ends: float
    roster_version: int
    roster_ends: int
    server_version: str
    policy: Policy | str
    """In force; or why there is none."""
    maintenance: Maintenance | None
    workers: Sequence[Worker]
    usage: Sequence[TeamUsage]
    claims: int
    """Enrolment tokens that were claimed and wait for the custodian."""


@click.command()
@click.option("--json", "as_list", is_flag=True, help="Print a list of {check, level, message, remedy}.")
@home_option
def doctor(as_list: bool, home: Path | None) -> None:
    """Find what is wrong with the site, from an admin's machine, and say what to do.

    The exit status is 1 where something failed.  On the hosts themselves, run `cloister-server doctor` and
    `cloister-worker doctor`: they see keys, disks, database and sandbox.
    """
    from cloister.errors import CloisterError
    from cloister.evidence.errors import EvidenceError

    try:
        found = diagnose(ask(home), now())
    except (CloisterError, EvidenceError) as error:
        remedy = "mend that first: nothing else can be seen; on the control plane, run: cloister-server doctor"
        found = [Diagnosis("site", (failure(str(error), remedy),))]
    sys.stdout.write(as_json(found) if as_list else as_text(found))
    sys.exit(exit_status(found))


def ask(home: Path | None) -> Facts:
    """Verify the site and ask for everything.

    Raises CloisterError, and EvidenceError where the site is not what signatures prove.
    """
    from cloister.api.v1 import enrolment_pb2
    from cloister.home import Home
    from cloister.renewal import expires_at

    with open_client(home) as client:
        roster = client.site.roster
        return Facts(
            site=roster.site,
            certificate_ends=expires_at(Home.at(home).read("tls.crt")).timestamp(),
            roster_version=roster.version,
            roster_ends=roster.expires_at,
            server_version=client.site.view.server_version,
            policy=_policy_of(client),
            maintenance=client.operations.maintenance(),
            workers=client.operations.workers(),
            usage=client.operations.usage(),
            claims=sum(token.state == enrolment_pb2.TOKEN_STATE_CLAIMED for token in client.tokens.list()),
        )


def diagnose(facts: Facts, moment: int) -> list[Diagnosis]:
    """What every check finds; `moment` is Unix seconds."""
    return [Diagnosis(name, tuple(check())) for name, check in _checks(facts, moment)]


def _checks(facts: Facts, moment: int) -> Iterator[tuple[str, Check]]:
    yield "site", lambda: [ok(f"{facts.site} answers, its roster and its log verify")]
    yield "certificate", lambda: [of_expiry("yours", facts.certificate_ends - moment, WARN_SECONDS, RENEW)]
    what = f"version {facts.roster_version}"
    yield "roster", lambda: [of_expiry(what, facts.roster_ends - moment, WARN_SECONDS, RESIGN)]
    yield "policy", lambda: _policy(facts.policy, moment)
    yield "maintenance", lambda: _maintenance(facts.maintenance)
    yield "hosts", lambda: _hosts(facts, moment)
    yield "quotas", lambda: _quotas(facts.usage)
    yield "enrolment", lambda: _enrolment(facts.claims)


def _policy_of(client: Client) -> Policy | str:
    from cloister.errors import NotFoundError
    from cloister.evidence.errors import EvidenceError
    from cloister.evidence.policy import Policy

    try:
        return Policy.parse(client.models.policy().payload)
    except NotFoundError:
        return "no release policy is in force: no job can be submitted"
    except EvidenceError as error:
        return str(error)


def _policy(policy: Policy | str, moment: int) -> Iterable[Finding]:
    if isinstance(policy, str):
        yield failure(policy, RESIGN_POLICY)
    else:
        what = f"{policy.id} version {policy.version}"
        yield of_expiry(what, policy.expires_at - moment, WARN_SECONDS, RESIGN_POLICY)


def _maintenance(found: Maintenance | None) -> Iterable[Finding]:
    if found is None:
        yield ok("none: work is taken")
    else:
        yield warning(
            f"since {found.since.ToDatetime():%Y-%m-%d %H:%M} UTC nothing new is taken", "cloister maintenance end"
        )


def _hosts(facts: Facts, moment: int) -> Iterable[Finding]:
    """Every pool has a host that takes work; each host is heard of, sandboxed, and of the server's version."""
    pools = defaultdict(list)
    for worker in facts.workers:
        pools[worker.pool].append(worker)
    if not pools:
        yield failure("no worker host is certified: no job can run", "have the custodian run: cloister-admin host add")
    for pool, workers in sorted(pools.items()):
        able = [worker for worker in workers if _takes_work(worker, moment)]
        for worker in workers:
            yield from _host(worker, facts.server_version, moment)
        if not able:
            yield failure(f"pool {pool}: none of {len(workers)} hosts takes work", "mend or uncordon one of them")
        else:
            yield ok(f"pool {pool}: {len(able)} of {len(workers)} hosts take work")


def _host(worker: Worker, server_version: str, moment: int) -> Iterable[Finding]:
    doctor_there = f"on {worker.host}, run: cloister-worker doctor"
    if not worker.HasField("last_seen"):
        yield warning(f"{worker.host} was never heard of", doctor_there)
    elif (silent := moment - worker.last_seen.seconds) > SILENT_SECONDS:
        yield warning(f"{worker.host} was not heard of for {silent // 60} minutes", doctor_there)
    if not _is_active(worker):
        yield warning(f"{worker.host} is told to take nothing new", f"cloister worker uncordon {worker.host}")
    if worker.HasField("sandboxed") and not worker.sandboxed:
        yield warning(f"{worker.host} cannot sandbox trainers", doctor_there)
    if worker.version and worker.version != server_version:
        text = f"{worker.host} runs version {worker.version}, the control plane {server_version}"
        yield warning(text, "install the control plane's version there")


def _takes_work(worker: Worker, moment: int) -> bool:
    return _is_active(worker) and moment - worker.last_seen.seconds <= SILENT_SECONDS


def _is_active(worker: Worker) -> bool:
    from cloister.operations import MODES

    return worker.mode == MODES["active"]


def _quotas(usage: Sequence[TeamUsage]) -> Iterable[Finding]:
    tight = False
    for team in usage:
        for field, limit in team.limits.ListFields():
            used = getattr(team.used, field.name)
            if used >= NEARLY * limit:
                tight = True
                text = f"team {team.team} has {used} of {limit} {field.name}"
                yield warning(text, f"cloister quota set {team.team}, or have the team free some")
    if not tight:
        yield ok(f"no team of {len(usage)} is near its limits")


def _enrolment(claims: int) -> Iterable[Finding]:
    if claims:
        yield warning(f"{claims} claims wait for the custodian", "cloister-admin token fetch, then token admit")
    else:
        yield ok("nobody waits to be admitted")
