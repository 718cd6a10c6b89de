# SPDX-License-Identifier: Apache-2.0
"""States of jobs and releases as the tables hold them: the words of the contract without their prefix."""

from __future__ import annotations

QUEUED = "QUEUED"
PREEMPTED = "PREEMPTED"
VALIDATING = "VALIDATING"
RUNNING = "RUNNING"
PAUSING = "PAUSING"
PAUSED = "PAUSED"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
EXPIRED = "EXPIRED"

WAITING = (QUEUED, PREEMPTED)
LEASED = (VALIDATING, RUNNING, PAUSING)
ENDED = (SUCCEEDED, FAILED, CANCELLED, EXPIRED)

PENDING = "PENDING"
RELEASE_LEASED = "LEASED"
"""Kept from the public: for a caller a leased release is a queued one."""
GRANTED = "GRANTED"
REFUSED = "REFUSED"

LOST = "LOST"
"""Outcome of an attempt whose worker was not heard of again."""
