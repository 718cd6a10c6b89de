# SPDX-License-Identifier: Apache-2.0
"""What a notice says.  docs/how-to/tell-when-jobs-end.md lists its fields.

Threat: a notice leaves the control plane, and may end in a mailbox.  So it holds ids, fixed words and a time: no name
of a dataset or model, no metadata, no message of an error, nothing of a specification but the name of the method.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cloister.evidence.canonical import canonical_bytes
from cloister_server.database.rows import JobRow
from cloister_server.errors import InvalidFieldError
from cloister_server.queue import spec as specs

FORMAT = "cloister-notice/1"
"""A reader takes notices of this format, and fields of it that it does not know."""


def notice_body(notice_id: str, job: JobRow, state: str, error_code: str, finished_at: int) -> str:
    """The notice as JSON in canonical form; `finished_at` is in milliseconds since 1970.

    The same bytes are sent in every attempt, so that a receiver may compare or sign them.
    """
    ended = datetime.fromtimestamp(finished_at / 1000, UTC)
    return canonical_bytes(
        {
            "format": FORMAT,
            "id": notice_id,
            "job_id": job.id,
            "team": job.team,
            "owner": job.owner,
            "method": _method(job),
            "state": state,
            "error_code": error_code,
            "finished_at": ended.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
    ).decode("utf-8")


def _method(job: JobRow) -> str:
    """Empty where this program does not know the specification: that must not keep a job from ending."""
    try:
        return specs.parse_spec(job.spec).method.WhichOneof("type") or ""
    except InvalidFieldError:
        return ""
