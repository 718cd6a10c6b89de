# SPDX-License-Identifier: Apache-2.0
"""Datasets: checked and sealed on this machine, then pushed.  The file's own name never leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloister.api.v1 import common_pb2, datasets_pb2
from cloister.errors import NotFoundError, ServerError, UsageError
from cloister.evidence.errors import BindingError
from cloister.evidence.manifest import ROWS_MEDIA_TYPE, Manifest, Trailer, VerifiedObject, verify_object
from cloister.evidence.revisions import details_after, revision_of
from cloister.formats.stream import LineSource, RowStream, StreamSummary
from cloister.push import (
    MeasuredSource,
    Spooled,
    changed,
    find_spooled,
    seal_to_spool,
    send_spooled,
    spool_key,
    trailer_for,
)
from cloister.revisions import at_revision, chain, check_newest, check_no_revision, split_revision
from cloister.sealed.payload import SealedDigest
from cloister.session import DAY_SECONDS, Session, check_name, is_id, pages
from cloister.upload import Progress, no_progress
from cloister.wire import sealed_from_proto

READY = datasets_pb2.DATASET_STATE_READY
EXPIRES_DAYS = 365


@dataclass(frozen=True)
class Terms:
    """What an owner signs beside the rows."""

    name: str
    purposes: tuple[str, ...]
    expires_days: int
    pool: str
    minimum_epsilon: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


class Datasets:
    """`client.datasets`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def push(
        self,
        rows: str | Path | RowStream,
        name: str,
        purposes: Sequence[str],
        *,
        expires_days: int = EXPIRES_DAYS,
        pool: str = "default",
        progress: Progress = no_progress,
    ) -> datasets_pb2.Dataset:
        """Check, seal and push a file of rows; called again after a failure, it continues.

        The file is JSONL, or in one of the formats of `cloister.formats`, told by its look.  `RowStream` names several
        files, a format, or group columns.
        Raises RowsError (with line numbers) before anything is sealed.
        """
        check_no_revision(check_name("dataset", name))
        return self._push(rows, Terms(name, tuple(purposes), expires_days, pool), progress)

    def append(
        self,
        rows: str | Path | RowStream,
        name_or_id: str,
        purposes: Sequence[str] = (),
        *,
        expires_days: int = EXPIRES_DAYS,
        progress: Progress = no_progress,
    ) -> datasets_pb2.Dataset:
        """Push new rows as the next revision of a dataset: an object of its own that holds them alone and names it.

        Name and pool are those of the dataset; so are the purposes, where none are given.  Raises as `push` does,
        and UsageError where another revision follows that dataset already.
        """
        earlier = self.verified(name_or_id)
        said = earlier.manifest
        check_newest(said, (Manifest.parse(d.sealed.manifest) for d in self.list() if d.state == READY))
        terms = Terms(
            said.name,
            tuple(purposes) or said.purposes,
            expires_days,
            said.pool,
            said.minimum_epsilon,
            details_after(earlier),
        )
        return self._push(rows, terms, progress)

    def _push(self, rows: str | Path | RowStream, terms: Terms, progress: Progress) -> datasets_pb2.Dataset:
        _check_terms(terms.purposes, terms.expires_days)
        stream = rows if isinstance(rows, RowStream) else RowStream([rows])
        spooled = self._seal(stream, stream.check(), terms)
        stubs = self._session.connection
        request = datasets_pb2.CreateDatasetRequest(sealed=spooled.message, wraps=spooled.wraps)
        stubs.call(stubs.datasets.CreateDataset, request)
        send_spooled(self._session, spooled, progress)
        return self.get(spooled.manifest.id)

    def _seal(self, stream: RowStream, summary: StreamSummary, terms: Terms) -> Spooled:
        """Rows flow from the files into the sealing: no plaintext is written anywhere."""
        session = self._session
        recipients = session.recipients(terms.pool)
        me = session.site.me()
        key = spool_key(
            kind="dataset",
            owner=me.id,
            name=terms.name,
            purposes=terms.purposes,
            pool=terms.pool,
            days=terms.expires_days,
            details=dict(terms.details),
            file=summary.sha256,
        )
        if (left := find_spooled(session, key, recipients)) is not None:
            return left
        now = session.clock()
        manifest = Manifest(
            kind="dataset",
            id=session.new_id(),
            name=terms.name,
            owner=me.id,
            team=me.team,
            pool=terms.pool,
            purposes=terms.purposes,
            media_type=ROWS_MEDIA_TYPE,
            created_at=now,
            expires_at=now + terms.expires_days * DAY_SECONDS,
            minimum_epsilon=terms.minimum_epsilon,
            details=dict(terms.details),
        )
        source = MeasuredSource(LineSource(stream.lines()), summary.size, no_progress)
        checked = _Checked(stream.name, source, summary, manifest)
        return seal_to_spool(session, key, manifest, source, recipients, checked)

    def get(self, name_or_id: str) -> datasets_pb2.Dataset:
        """One dataset: by id, by name (the newest that is ready), or as NAME@REVISION.  Raises NotFoundError."""
        if is_id(name_or_id):
            return self._by_id(name_or_id)
        if (asked := split_revision(name_or_id)) is None:
            return self._by_name(name_or_id)
        return self._by_id(self._at(*asked).manifest.id)

    def revisions(self, name_or_id: str) -> tuple[VerifiedObject, ...]:
        """A dataset and every one that it builds on, newest first, each with its owner's signature checked."""
        return tuple(chain(self._session, self.verified(name_or_id), self._by_id))

    def list(self, limit: int | None = None) -> Iterator[datasets_pb2.Dataset]:
        """Datasets, newest first."""
        stubs = self._session.connection

        def fetch(page: common_pb2.PageRequest) -> datasets_pb2.ListDatasetsResponse:
            return stubs.call(stubs.datasets.ListDatasets, datasets_pb2.ListDatasetsRequest(page=page))

        for answer in pages(fetch, limit):
            yield from answer.datasets

    def delete(self, name_or_id: str) -> datasets_pb2.Dataset:
        """Destroy the wraps and the blob: afterwards nobody can open it, the team's recovery key included."""
        stubs = self._session.connection
        request = datasets_pb2.DeleteDatasetRequest(id=self.get(name_or_id).id)
        return stubs.call(stubs.datasets.DeleteDataset, request).dataset

    def verified(self, name_or_id: str) -> VerifiedObject:
        """A dataset of this team that is ready, with its owner's signature checked: what a job may name.

        Raises an EvidenceError where the control plane hands out another object than asked for.
        """
        if (asked := None if is_id(name_or_id) else split_revision(name_or_id)) is not None:
            return self.verified(self._at(*asked).manifest.id)
        dataset = self.get(name_or_id)
        if dataset.state != READY:
            state = datasets_pb2.DatasetState.Name(dataset.state).removeprefix("DATASET_STATE_").lower()
            raise UsageError(f"dataset {name_or_id} is {state}; a job needs one that is ready")
        session = self._session
        found = verify_object(sealed_from_proto(dataset.sealed), session.site.roster, now=session.clock())
        wanted = found.manifest.id if is_id(name_or_id) else found.manifest.name
        if wanted != name_or_id or found.manifest.kind != "dataset":
            raise BindingError(f"asked for dataset {name_or_id}, the control plane handed over another object")
        if found.manifest.team != session.site.me().team:
            raise BindingError(f"dataset {name_or_id} is sealed by another team")
        return found

    def _at(self, name: str, number: int) -> VerifiedObject:
        return at_revision(self._session, self.verified(name), number, self._by_id)

    def _by_id(self, dataset_id: str) -> datasets_pb2.Dataset:
        stubs = self._session.connection
        answer = stubs.call(stubs.datasets.GetDataset, datasets_pb2.GetDatasetRequest(id=dataset_id))
        if answer.dataset.id != dataset_id:
            raise ServerError(f"asked for dataset {dataset_id}, got another one; tell the administrator")
        return answer.dataset

    def _by_name(self, name: str) -> datasets_pb2.Dataset:
        """The newest that is ready, by the time that its owner signed."""
        named = [d for d in self.list() if d.state == READY and Manifest.parse(d.sealed.manifest).name == name]
        if not named:
            raise NotFoundError(f"no dataset named {name!r} is ready; see: cloister dataset list")
        return max(named, key=lambda d: _age(Manifest.parse(d.sealed.manifest)))


class _Checked:
    """Makes the trailer, and refuses files that are no longer those whose rows were checked."""

    def __init__(self, name: str, source: MeasuredSource, summary: StreamSummary, manifest: Manifest) -> None:
        self._name = name
        self._source = source
        self._summary = summary
        self._manifest = manifest

    def __call__(self, digest: SealedDigest) -> Trailer:
        if self._source.digest.hexdigest() != self._summary.sha256:
            raise changed(self._name)
        return trailer_for(self._manifest, digest, self._summary.rows)


def _age(manifest: Manifest) -> tuple[int, int]:
    """Revisions of one second are told apart by their number."""
    return manifest.created_at, revision_of(manifest).number


def _check_terms(purposes: Sequence[str], expires_days: int) -> None:
    if not purposes or any(not p or len(p) > 100 or not p.isprintable() for p in purposes):
        raise UsageError("a dataset needs at least one purpose, such as: ticket-routing")
    if not 1 <= expires_days <= 3650:
        raise UsageError(f"a dataset expires after 1 to 3650 days, not {expires_days}")
