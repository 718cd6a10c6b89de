# SPDX-License-Identifier: Apache-2.0
"""The agent's end of the key agent's socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cloister.evidence.manifest import SealedObject
from cloister.evidence.opening import JobOpening, ReleaseOpening
from cloister.evidence.signatures import Statement
from cloister_workers.keyagent import documents, protocol
from cloister_workers.keyagent.errors import KeyAgentGone, Refused, RequestError
from cloister_workers.keyagent.protocol import (
    encode,
    socket_address,
    take,
    take_bytes,
    take_object,
    take_objects,
)


@dataclass(frozen=True)
class Status:
    """What the key agent is and remembers."""

    host: str
    sealing_key_id: str
    signing_key_id: str
    roster_version: int
    roster_expires_at: int
    checkpoint_size: int


@dataclass(frozen=True)
class WrappedKey:
    """A data key for one recipient."""

    recipient_key_id: str
    wrap: bytes


@dataclass(frozen=True)
class Sealed:
    """What `seal` made; the ciphertext is in the descriptor that was given."""

    object_id: str
    object: SealedObject
    wraps: tuple[WrappedKey, ...]
    result: Statement | None
    """What the host says of it; a de-biasing job's report has none, the result of its job binds it."""
    files_sha256: str
    layer: str
    """Which kind of layer an export is (`cloister.evidence.layers`), as its manifest says; empty for the rest."""
    size: int
    sha256: str


@dataclass(frozen=True)
class Granted:
    """What `open_release` made."""

    wrap: WrappedKey
    statement: Statement


class Connection:
    """One connection; safe for threads, which wait for one another."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._lock = threading.Lock()
        try:
            with socket_address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise KeyAgentGone(f"the key agent does not answer at {path}: {error.strerror}") from None

    def close(self) -> None:
        """End the connection and its sessions.  A request that waits on another thread fails with KeyAgentGone."""
        with suppress(OSError):  # of a socket that the other end has closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def ask(self, op: str, body: Mapping[str, object], fds: Sequence[int] = ()) -> Mapping[str, object]:
        """The answer to one request.  Raises Refused, KeyAgentGone."""
        with self._lock:
            try:
                protocol.send(self._socket, {"op": op, **body}, fds)
                frame = protocol.receive(self._socket)
            except (OSError, RequestError) as error:
                raise KeyAgentGone(f"the key agent does not answer: {error}") from None
        if frame is None:
            raise KeyAgentGone("the key agent ended")
        frame.close()
        if "error" in frame.body:
            raise Refused(take(frame.body, "error", str), take(frame.body, "message", str))
        return frame.body


def status(connection: Connection) -> Status:
    """Raises Refused, KeyAgentGone."""
    body = connection.ask("status", {})
    return Status(
        host=take(body, "host", str),
        sealing_key_id=take(body, "sealing_key_id", str),
        signing_key_id=take(body, "signing_key_id", str),
        roster_version=take(body, "roster_version", int),
        roster_expires_at=take(body, "roster_expires_at", int),
        checkpoint_size=take(body, "checkpoint_size", int),
    )


def update_roster(connection: Connection, roster: Statement) -> int:
    """Hand over a roster; returns its version.  Raises Refused, KeyAgentGone."""
    body = connection.ask("update_roster", {"roster": documents.statement_text(roster)})
    return take(body, "roster_version", int)


def open_release(connection: Connection, opening: ReleaseOpening, roster: Statement, wrap: bytes) -> Granted:
    """Have a version sealed to its recipient.  Raises Refused, KeyAgentGone."""
    body = connection.ask(
        "open_release",
        {
            "roster": documents.statement_text(roster),
            "opening": documents.release_opening_table(opening),
            "wrap": encode(wrap),
        },
    )
    wrapped = WrappedKey(take(body, "recipient_key_id", str), take_bytes(body, "wrap"))
    return Granted(wrapped, documents.statement(body, "statement"))


class JobSession:
    """An attempt that the key agent has opened.  Lives as long as `connection`, which it owns."""

    def __init__(self, path: Path, opening: JobOpening, roster: Statement, *, sandboxed: bool) -> None:
        """Open it.  Raises Refused, KeyAgentGone."""
        self._path = path
        self._connection = Connection(path)
        try:
            body = self._connection.ask(
                "open_job",
                {
                    "roster": documents.statement_text(roster),
                    "opening": documents.job_opening_table(opening),
                    "sandboxed": sandboxed,
                },
            )
        except BaseException:
            self._connection.close()
            raise
        self._session = take(body, "session", str)
        self.files_sha256 = {
            take(item, "id", str): take(item, "files_sha256", str) for item in take_objects(body, "objects")
        }
        """Of every model among the inputs, by object id; verified."""
        self.gate = take_object(body, "gate")
        """Bars of the verified policy for a de-biasing job; empty for the defaults."""

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def decrypt(self, object_id: str, wrap: bytes, source: int, target: int) -> int:
        """Have the file `source` decrypted into `target`; returns the bytes written.

        Uses a connection of its own, so that several may flow at once.  Raises Refused, KeyAgentGone.
        """
        connection = Connection(self._path)
        try:
            request = {"session": self._session, "object_id": object_id, "wrap": encode(wrap)}
            return take(connection.ask("decrypt", request, (source, target)), "size", int)
        finally:
            connection.close()

    def seal(
        self,
        kind: str,
        step: int,
        metrics: Mapping[str, float],
        metrics_before: Mapping[str, float],
        source: int,
        target: int,
        *,
        figures: bytes = b"",
    ) -> Sealed:
        """Have the bundle in the memory `source` sealed into the file `target`.

        `figures` (canonical JSON) go with the export of a de-biasing job, after its report.
        Raises Refused, KeyAgentGone.
        """
        body = self._connection.ask(
            "seal",
            {
                "session": self._session,
                "kind": kind,
                "step": step,
                "metrics": dict(metrics),
                "metrics_before": dict(metrics_before),
                "figures": encode(figures),
            },
            (source, target),
        )
        wraps = take_objects(body, "wraps")
        return Sealed(
            object_id=take(body, "object_id", str),
            object=documents.sealed(body),
            wraps=tuple(WrappedKey(take(w, "recipient_key_id", str), take_bytes(w, "wrap")) for w in wraps),
            result=documents.statement(body, "result") if take(body, "result", str) else None,
            files_sha256=take(body, "files_sha256", str),
            layer=take(body, "layer", str),
            size=take(body, "size", int),
            sha256=take(body, "sha256", str),
        )
