# SPDX-License-Identifier: Apache-2.0
"""What a scrape looks up: the queue, the log, the store, and what expires."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography import x509
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection, Table, func, select
from sqlalchemy.exc import SQLAlchemyError

from cloister_audit.errors import AuditError
from cloister_audit.tables import audit_checkpoint
from cloister_server import __version__
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.errors import ServerError
from cloister_server.metrics import catalogue
from cloister_server.metrics.catalogue import Metric
from cloister_server.queue import states
from cloister_server.site import Site

_WAITING = {"job": states.WAITING, "release": (states.QUEUED,)}
_HELD = {"job": states.LEASED, "release": (states.RELEASE_LEASED,)}
_TABLES: dict[str, Table] = {"job": tables.job, "release": tables.release}


class SiteGauges:
    """A collector of prometheus_client."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is asked of the database before the first scrape."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape.  A database that does not answer leaves out its own figures alone."""
        site = self._site
        yield _family(catalogue.BUILD, [((__version__,), 1)])
        yield _family(catalogue.STORE_FREE, [((), site.store.free_bytes())])
        yield _family(catalogue.STORE_RESERVE, [((), site.config.reserve_bytes)])
        yield _family(catalogue.ROSTER_EXPIRES, [((), site.rosters.current().roster.expires_at)])
        yield _family(catalogue.CERTIFICATE_EXPIRES, self._certificate())
        try:
            known = site.unit_of_work.read(self._database)
        except (ServerError, AuditError, SQLAlchemyError) as error:
            site.journal.failure("scrape_incomplete", error)
            known = []
        yield _family(catalogue.DATABASE_UP, [((), int(bool(known)))])
        yield from known

    def _certificate(self) -> list[tuple[tuple[str, ...], float]]:
        try:
            pem = self._site.config.tls_certificate.read_bytes()
            return [((), x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())]
        except (OSError, ValueError):
            return []  # its absence is what an alert rule asks for

    def _database(self, connection: Connection) -> list[GaugeMetricFamily]:
        pools = sorted({host.pool for host in self._site.rosters.current().roster.hosts})
        return [*_queue(connection, pools), *self._log(connection)]

    def _log(self, connection: Connection) -> Iterator[GaugeMetricFamily]:
        yield _family(catalogue.LOG_ENTRIES, [((), self._site.ledger.head(connection).size)])
        table = audit_checkpoint
        query = select(table.c.size, table.c.signed_at, now_ms(connection)).order_by(table.c.size.desc()).limit(1)
        newest = connection.execute(query).one_or_none()
        if newest is not None:
            size, signed_at, now = newest
            yield _family(catalogue.CHECKPOINT_ENTRIES, [((), size)])
            yield _family(catalogue.CHECKPOINT_AGE, [((), max(0.0, now / 1000 - signed_at / 1e6))])


def _queue(connection: Connection, pools: list[str]) -> Iterator[GaugeMetricFamily]:
    depth: list[tuple[tuple[str, ...], float]] = []
    oldest: list[tuple[tuple[str, ...], float]] = []
    held: list[tuple[tuple[str, ...], float]] = []
    for kind, table in _TABLES.items():
        waiting = _by_pool(connection, table, _WAITING[kind])
        leased = _by_pool(connection, table, _HELD[kind])
        # A pool of which the roster knows no host any more is shown as long as something waits in it.
        for pool in sorted({*pools, *waiting, *leased}):
            depth.append(((pool, kind), waiting.get(pool, (0, 0.0))[0]))
            oldest.append(((pool, kind), waiting.get(pool, (0, 0.0))[1]))
            held.append(((pool, kind), leased.get(pool, (0, 0.0))[0]))
    yield _family(catalogue.QUEUE_DEPTH, depth)
    yield _family(catalogue.QUEUE_OLDEST, oldest)
    yield _family(catalogue.LEASED, held)


def _by_pool(connection: Connection, table: Table, wanted: tuple[str, ...]) -> dict[str, tuple[int, float]]:
    """Pool -> how many, and the age of the oldest in seconds."""
    query = (
        select(table.c.pool, func.count(), now_ms(connection) - func.min(table.c.created_at))
        .where(table.c.state.in_(wanted))
        .group_by(table.c.pool)
    )
    return {pool: (count, max(0, age) / 1000) for pool, count, age in connection.execute(query)}


def _family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
