# SPDX-License-Identifier: Apache-2.0
"""Which kind of job a start message asks for."""

from __future__ import annotations

from typing import cast

from cloister.evidence.canonical import JSON
from cloister.evidence.errors import EvidenceError
from cloister.evidence.fields import Fields
from cloister.gate import Gate
from cloister_workers.errors import ProtocolError
from cloister_workers.messages import Start
from cloister_workers.trainer.catalogue import job_steps
from cloister_workers.trainer.job import run_job
from cloister_workers.trainer.place import Inputs, Workplace
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import parse_spec


def run(start: Start, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run the job to its Result. Raises TrainerError, Cancelled or Paused."""
    from cloister_workers.trainer.debias.spec import is_debias, parse_debias

    if not is_debias(start.spec):
        spec = parse_spec(start.spec)
        step = job_steps().get(spec.method)
        (step.run if step is not None else run_job)(spec, inputs, place, session)
        return
    # Seconds of imports that no other job needs.
    from cloister_workers.trainer.debias.job import run_debias

    run_debias(parse_debias(start.spec), _gate(start), inputs, place, session)


def _gate(start: Start) -> Gate:
    if not start.gate:
        return Gate()
    try:
        return Gate.read(Fields("gate", cast("JSON", start.gate)))
    except EvidenceError as error:
        raise ProtocolError("the gate of the start message is not one; run one version on both ends") from error
