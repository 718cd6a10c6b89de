# SPDX-License-Identifier: Apache-2.0
"""Wrapping what was sealed before to new hosts, and opening it without its owner.

Datasets and base models are sealed to the team's recovery key too, which wraps them anew.  An adapted version is sealed
to its pool alone until its release policy holds; whom it was released to can wrap it, and nobody else.

The recipients come from the roster that the root signed, never from the control plane.  A wrap is not authenticated:
a hostile control plane can hand out one with a key of its own, and the wrap for the new host is then as useless as
one that it could have stored itself; the payload opens under its own key alone, and its digest is signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.api.v1 import common_pb2, datasets_pb2, grants_pb2, models_pb2
from cloister.datasets import Datasets
from cloister.errors import NotFoundError, RefusedError
from cloister.evidence.errors import BindingError, EvidenceError
from cloister.evidence.manifest import Manifest, VerifiedObject, verify_object
from cloister.files import new_output
from cloister.lineage import is_adapted, verify_result_version
from cloister.models import Models
from cloister.pull import released_key
from cloister.releases import Releases
from cloister.sealed.errors import SealedError
from cloister.sealed.keys import Identity, Recipient, unwrap, wrap
from cloister.sealed.payload import open_stream
from cloister.session import Session
from cloister.upload import Progress, fetch_blob
from cloister.wire import sealed_from_proto

_WITH_BLOB = (models_pb2.MODEL_VERSION_STATE_CANDIDATE, models_pb2.MODEL_VERSION_STATE_RELEASED)


@dataclass(frozen=True)
class Granted:
    """One object, and for how many recipients it was wrapped anew, or why it was not."""

    kind: str
    id: str
    name: str
    added: int
    refusal: str = ""


@dataclass(frozen=True)
class _Held:
    """An object whose data key was opened."""

    object: VerifiedObject
    dek: bytes
    recipients: frozenset[str]


class Grants:
    """`client.grants`.  Members: with the team's recovery key, or with what was released to them."""

    def __init__(self, session: Session, datasets: Datasets, models: Models, releases: Releases) -> None:
        self._session = session
        self._datasets = datasets
        self._models = models
        self._releases = releases

    def rewrap(self, identity: Identity) -> Iterator[Granted]:
        """Wrap every dataset and base model of the team to whoever the roster certifies and who has no wrap yet.

        An object that is not sealed to this identity, or whose signature does not verify, is told with its reason, and
        the rest goes on.
        """
        for kind, object_id, name in self._objects():
            try:
                held = self._open(object_id, identity)
            except (RefusedError, EvidenceError) as error:
                yield Granted(kind, object_id, name, 0, str(error))
                continue
            manifest = held.object.manifest
            missing = [r for r in self._session.recipients(manifest.pool) if r.key_id not in held.recipients]
            if missing:
                self._add(held, missing)
            yield Granted(manifest.kind, manifest.id, manifest.name, len(missing))

    def rewrap_released(self) -> Iterator[Granted]:
        """Wrap every adapted version of the team that was released to this person to hosts of its pool that lack it.

        A version that lacks a wrap and was not released to them, or does not verify, is told with its reason.
        """
        for version, missing in self._adapted():
            added, refusal = 0, ""
            try:
                if missing:
                    self._wrap_released(version, missing)
                    added = len(missing)
            except (RefusedError, EvidenceError, SealedError) as error:
                refusal = str(error)
            yield Granted("version", version.id, version.name, added, refusal)

    def lacking(self) -> list[str]:
        """Ids of adapted versions of the team that some host of their pool holds no wrap of."""
        return [version.id for version, missing in self._adapted() if missing]

    def recover(self, name_or_id: str, identity: Identity, output: Path, progress: Progress) -> VerifiedObject:
        """Open a dataset of the team into a new file.  Nothing appears unless every byte verifies.

        Raises UsageError where the file exists, RefusedError, EvidenceError, SealedError.
        """
        asked = self._datasets.verified(name_or_id)
        held = self._open(asked.manifest.id, identity)
        found = held.object
        if found.trailer_sha256 != asked.trailer_sha256:
            raise BindingError(f"dataset {name_or_id}: the control plane handed over another object")
        session, trailer = self._session, found.trailer
        ciphertext = session.home.cache / f"{trailer.ciphertext_sha256}.payload"
        with new_output(output) as sink:
            fetch_blob(session.connection, found.manifest.id, ciphertext, trailer.ciphertext_size, progress)
            try:
                with ciphertext.open("rb") as source:
                    open_stream(
                        source,
                        sink,
                        held.dek,
                        found.context,
                        expected_sha256=trailer.ciphertext_sha256,
                        expected_size=trailer.ciphertext_size,
                    )
            finally:
                ciphertext.unlink()
        return found

    def _objects(self) -> Iterator[tuple[str, str, str]]:
        """Kind, id and name of every dataset and base model of this team that is ready."""
        team = self._session.site.me().team
        for dataset in self._datasets.list():
            if dataset.team == team and dataset.state == datasets_pb2.DATASET_STATE_READY:
                yield "dataset", dataset.id, Manifest.parse(dataset.sealed.manifest).name
        for version in self._models.list():
            if version.team == team and not version.base and version.state == models_pb2.MODEL_VERSION_STATE_READY:
                yield "model", version.id, version.name

    def _adapted(self) -> Iterator[tuple[models_pb2.ModelVersion, list[Recipient]]]:
        """Every adapted version of this team with the hosts of its pool that hold no wrap, by the roster."""
        team, pools = self._session.site.me().team, {host.pool for host in self._session.site.roster.hosts}
        for version in self._models.list():
            if version.team != team or version.state not in _WITH_BLOB or not is_adapted(version):
                continue
            pool = Manifest.parse(version.sealed.manifest).pool
            hosts = self._session.pool_recipients(pool) if pool in pools else []
            yield version, [host for host in hosts if host.key_id not in version.recipient_key_ids]

    def _wrap_released(self, version: models_pb2.ModelVersion, missing: list[Recipient]) -> None:
        session = self._session
        lineage = verify_result_version(session, version, version.id)
        dek = released_key(session, self._releases.granted_to_me(version.id), lineage)
        self._add(_Held(lineage.object, dek, frozenset()), missing)

    def _open(self, object_id: str, identity: Identity) -> _Held:
        session, key_id = self._session, identity.recipient.key_id
        stubs = session.connection
        request = grants_pb2.GetWrapRequest(object_id=object_id, recipient_key_id=key_id)
        try:
            answer = stubs.call(stubs.grants.GetWrap, request)
        except NotFoundError:
            raise RefusedError(
                f"object {object_id} is not sealed to the key {key_id}, or not your team's; use the recovery key that "
                "the roster named when it was sealed"
            ) from None
        found = verify_object(sealed_from_proto(answer.sealed), session.site.roster, now=session.clock())
        if found.manifest.id != object_id or found.manifest.team != session.site.me().team:
            raise BindingError(f"asked for object {object_id}, the control plane handed over another one")
        try:
            dek = unwrap(answer.wrap.wrap, identity, found.context)
        except SealedError as error:
            raise RefusedError(f"object {object_id}: its wrap does not open with this key: {error}") from None
        return _Held(found, dek, frozenset(answer.recipient_key_ids))

    def _add(self, held: _Held, recipients: list[Recipient]) -> None:
        stubs, found = self._session.connection, held.object
        wraps = [common_pb2.Wrap(recipient_key_id=r.key_id, wrap=wrap(held.dek, r, found.context)) for r in recipients]
        stubs.call(stubs.grants.AddWraps, grants_pb2.AddWrapsRequest(object_id=found.manifest.id, wraps=wraps))
