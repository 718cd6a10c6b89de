# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, reports and results: from the trainer's memory through the key agent into the store.

Order: sealed into the spool, registered with all its evidence, sent; only then is it spoken of.  A crash in between
leaves an artifact without a complete blob, which nobody can use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.api.v1 import common_pb2, workers_pb2
from cloister.wire import sealed_to_proto, statement_to_proto
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.openings import refusal
from cloister_workers.agent.spool import disk_full_is_our_fault
from cloister_workers.agent.transfer import Transfer
from cloister_workers.crashpoints import crash_here
from cloister_workers.keyagent.client import JobSession, Sealed
from cloister_workers.keyagent.errors import Refused

_KINDS = {
    "state": workers_pb2.ARTIFACT_KIND_STATE,
    "export": workers_pb2.ARTIFACT_KIND_EXPORT,
    "report": workers_pb2.ARTIFACT_KIND_REPORT,
}


@dataclass(frozen=True)
class Bundle:
    """What a trainer handed over: the memory's descriptor and its figures."""

    kind: str
    fd: int
    step: int
    metrics: Mapping[str, float]
    metrics_before: Mapping[str, float]
    figures: bytes = b""
    """Numbers of a de-biasing job, with its export."""


def seal(session: JobSession, bundle: Bundle, transfer: Transfer, folder: Path) -> tuple[Sealed, Path]:
    """Have a bundle sealed into the spool.  Raises AttemptError, KeyAgentGone."""
    transfer.lease.check()
    transfer.spool.check_space(os.fstat(bundle.fd).st_size)
    path = folder / f"{bundle.kind}.{bundle.step}.out"
    with disk_full_is_our_fault(), path.open("wb") as file:
        try:
            made = session.seal(
                bundle.kind,
                bundle.step,
                bundle.metrics,
                bundle.metrics_before,
                bundle.fd,
                file.fileno(),
                figures=bundle.figures,
            )
        except Refused as refused:
            raise refusal(refused) from None
    if bundle.kind == "state":
        crash_here("after-checkpoint-sealed")
    return made, path


def store(lease: Lease, bundle: Bundle, made: Sealed, path: Path, transfer: Transfer) -> None:
    """Register a sealed bundle and send it.  Raises LeaseLostError, AttemptError."""
    crash_here("before-upload")
    request = workers_pb2.CreateArtifactRequest(
        job_id=lease.work_id,
        attempt=lease.attempt,
        kind=_KINDS[bundle.kind],
        step=bundle.step,
        sealed=sealed_to_proto(made.object),
        wraps=[common_pb2.Wrap(recipient_key_id=w.recipient_key_id, wrap=w.wrap) for w in made.wraps],
        result=None if made.result is None else statement_to_proto(made.result),
        figures=bundle.figures,
    )
    transfer.control.create_artifact(lease, request)
    transfer.upload(made.object_id, path)
    path.unlink()
