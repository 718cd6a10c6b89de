# SPDX-License-Identifier: Apache-2.0
"""The reference page of the metrics: `python -m cloister_server.metrics.page`."""

from __future__ import annotations

import sys

from cloister_server.metrics.catalogue import METRICS

_PAGE = """# Metrics

This page is made from the catalogue in the code: `python -m cloister_server.metrics.page`.

`[metrics] address = "127.0.0.1:9464"` serves `GET /metrics` in Prometheus' text format; without it nothing is served.
Off loopback `[metrics] client_ca` is required: TLS 1.3 with the certificate of `[tls]`, for clients of that authority
alone. No label names a team, a person, a dataset or anything that a request said. Each process counts what it did
itself; what comes from the database (queue, log, checkpoint) every process of a site shows alike, so take `max` over
them, not `sum`.

Example alert rules are in `deploy/monitoring/alerts.yml`.

| metric | type | labels | meaning |
|---|---|---|---|
{rows}"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{metric.name}` | {metric.type} | {', '.join(metric.labels) or '–'} | {metric.meaning} |\n"
        for metric in METRICS
    ]
    return _PAGE.format(rows="".join(rows))


if __name__ == "__main__":
    sys.stdout.write(page())
