# SPDX-License-Identifier: Apache-2.0
"""The closed list of metrics.  docs/reference/metrics.md is made from it; nothing else is exported.

Threat: whoever reads metrics needs no role at the site.  So a label takes a value out of a list that the site's
operator made (methods, status codes, pools, audit actions), never a team, a person, a dataset or a word of a request.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
LABELS = ("action", "code", "kind", "method", "pool", "version")
"""Every label that a metric may have."""
OWN_PREFIX = "cloister_"


@dataclass(frozen=True)
class Metric:
    """One metric; its name ends with its unit."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


CALLS = Metric("cloister_calls_total", COUNTER, ("method", "code"), "Calls that ended, by gRPC method and status code.")
CALL_SECONDS = Metric(
    "cloister_call_seconds", HISTOGRAM, ("method",), "How long calls took; a stream counts to its end."
)
ENTRIES = Metric("cloister_audit_entries_total", COUNTER, ("action",), "Entries that this process wrote, by action.")
APPEND_SECONDS = Metric(
    "cloister_audit_append_seconds",
    HISTOGRAM,
    (),
    "How long appending to the log took inside a transaction, with the wait for the log's one lock.",
)
APPEND_FAILURES = Metric(
    "cloister_audit_append_failures_total", COUNTER, (), "Changes that were undone because the log took no entry."
)
LEASES_LOST = Metric(
    "cloister_leases_lost_total", COUNTER, (), "Leases that this process took back because nobody kept them."
)
NOTICES_SENT = Metric(
    "cloister_notices_sent_total", COUNTER, ("kind",), "Notices that the command or the URL took from this process."
)
NOTICES_FAILED = Metric(
    "cloister_notices_failed_total", COUNTER, ("kind",), "Deliveries of this process that failed, by command or URL."
)
NOTICES_GIVEN_UP = Metric(
    "cloister_notices_given_up_total",
    COUNTER,
    ("kind",),
    "Notices that this process gave up, after `[notices] give_up_seconds`.",
)
SERVING = Metric("cloister_serving", GAUGE, (), "1 while a change could be made and logged, or else 0.")
DATABASE_UP = Metric(
    "cloister_database_up",
    GAUGE,
    (),
    "1 where the database answered this scrape, or else 0 and its figures are left out.",
)
QUEUE_DEPTH = Metric("cloister_queue_depth", GAUGE, ("pool", "kind"), "Jobs or releases that wait for a worker.")
QUEUE_OLDEST = Metric(
    "cloister_queue_oldest_seconds", GAUGE, ("pool", "kind"), "Age of the oldest of them; 0 where none waits."
)
LEASED = Metric("cloister_leased", GAUGE, ("pool", "kind"), "Jobs or releases that a worker holds.")
LOG_ENTRIES = Metric("cloister_log_entries", GAUGE, (), "Entries in the log.")
CHECKPOINT_ENTRIES = Metric("cloister_checkpoint_entries", GAUGE, (), "Entries under the newest signed checkpoint.")
CHECKPOINT_AGE = Metric("cloister_checkpoint_age_seconds", GAUGE, (), "Age of the newest signed checkpoint.")
STORE_FREE = Metric("cloister_store_free_bytes", GAUGE, (), "Bytes that the store's file system can still take.")
STORE_RESERVE = Metric("cloister_store_reserve_bytes", GAUGE, (), "Bytes of them that uploads leave alone.")
ROSTER_EXPIRES = Metric(
    "cloister_roster_expires_timestamp_seconds", GAUGE, (), "When the roster in force expires, Unix time."
)
CERTIFICATE_EXPIRES = Metric(
    "cloister_certificate_expires_timestamp_seconds", GAUGE, (), "When the certificate file's certificate expires."
)
BUILD = Metric("cloister_build_info", GAUGE, ("version",), "Always 1; the label is this program's version.")

METRICS = (
    CALLS,
    CALL_SECONDS,
    ENTRIES,
    APPEND_SECONDS,
    APPEND_FAILURES,
    LEASES_LOST,
    NOTICES_SENT,
    NOTICES_FAILED,
    NOTICES_GIVEN_UP,
    SERVING,
    DATABASE_UP,
    QUEUE_DEPTH,
    QUEUE_OLDEST,
    LEASED,
    LOG_ENTRIES,
    CHECKPOINT_ENTRIES,
    CHECKPOINT_AGE,
    STORE_FREE,
    STORE_RESERVE,
    ROSTER_EXPIRES,
    CERTIFICATE_EXPIRES,
    BUILD,
    Metric("process_virtual_memory_bytes", GAUGE, (), "Virtual memory of this process."),
    Metric("process_resident_memory_bytes", GAUGE, (), "Resident memory of this process."),
    Metric("process_start_time_seconds", GAUGE, (), "When this process started, Unix time."),
    Metric("process_cpu_seconds_total", COUNTER, (), "Processor time of this process."),
    Metric("process_open_fds", GAUGE, (), "Open file descriptors of this process."),
    Metric("process_max_fds", GAUGE, (), "How many it may open."),
)
