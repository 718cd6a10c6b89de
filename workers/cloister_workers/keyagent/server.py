# SPDX-License-Identifier: Apache-2.0
"""The key agent's socket: accepts the agent's user alone, one thread for each connection, one request at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.evidence.errors import EvidenceError
from cloister.sd_notify import ServiceManager
from cloister.sealed.errors import BundleError, SealedError
from cloister_workers.keyagent import documents, protocol
from cloister_workers.keyagent.errors import KeyAgentError, KeyStoreError, RequestError, SessionError
from cloister_workers.keyagent.gate import Gate
from cloister_workers.keyagent.jobs import JobDesk, Session
from cloister_workers.keyagent.memory import Memory
from cloister_workers.keyagent.protocol import Frame, socket_address, take
from cloister_workers.keyagent.releases import ReleaseDesk
from cloister_workers.keyagent.vault import Vault

SOCKET = "keyagent.sock"
MAX_CONNECTIONS = 64
_CREDENTIALS = struct.Struct("3i")

Log = Callable[[Mapping[str, object]], None]


class KeyAgent:
    """Answers requests; knows nothing of sockets.  Safe for threads."""

    def __init__(
        self,
        vault: Vault,
        memory: Memory,
        clock: Callable[[], int],
        log: Log,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._vault = vault
        self._gate = Gate(vault, memory, clock)
        self._jobs = JobDesk(vault, self._gate, clock, random_bytes)
        self._releases = ReleaseDesk(vault, self._gate, clock)
        self._log = log
        self._sessions: dict[str, Session] = {}

    def answer(self, frame: Frame, mine: set[str]) -> dict[str, object]:
        """The answer to one request; `mine` are the sessions that this connection opened and will take along."""
        op = frame.body.get("op")
        try:
            reply = self._dispatch(frame, mine)
        except (EvidenceError, SealedError, KeyAgentError) as error:
            text = _words(error)
            self._log({"event": "refused", "op": str(op)[:32], "reason": error.reason, "message": text})
            return {"error": error.reason, "message": text}
        except OSError as error:
            self._log({"event": "failed", "op": str(op)[:32], "errno": error.errno})
            return {"error": "STATE_NOT_WRITTEN", "message": "the key agent could not write what it must remember"}
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was opened, and the agent must not hang
            self._log({"event": "defect", "op": str(op)[:32], "at": _place(error)})
            return {"error": "INTERNAL", "message": f"a defect in the key agent: {type(error).__name__}"}
        if op != "status":
            self._log({"event": "done", "op": str(op)[:32]})
        return reply

    def close(self, session_id: str) -> None:
        """End a session; what still flows for it stops."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.closed.set()

    def _dispatch(self, frame: Frame, mine: set[str]) -> dict[str, object]:
        body = frame.body
        match take(body, "op", str):
            case "status":
                return self._status()
            case "update_roster":
                roster = self._gate.update_roster(documents.statement(body, "roster"))
                return {"roster_version": roster.version}
            case "open_job":
                session, reply = self._jobs.open(body)
                self._sessions[session.id] = session
                mine.add(session.id)
                return reply
            case "decrypt":
                return self._jobs.decrypt(self._session(body), body, frame.fds)
            case "seal":
                return self._jobs.seal(self._session(body), body, frame.fds)
            case "open_release":
                return self._releases.open(body)
            case "close":
                self.close(self._session(body).id)
                return {}
        raise RequestError("no such op")

    def _session(self, body: Mapping[str, object]) -> Session:
        session = self._sessions.get(take(body, "session", str))
        if session is None:
            raise SessionError("no such session: it was closed, or the connection that opened it ended")
        return session

    def _status(self) -> dict[str, object]:
        state = self._gate.remembered
        head = state.head()
        return {
            "host": self._vault.host_id,
            "sealing_key_id": self._vault.sealing.recipient.key_id,
            "signing_key_id": self._vault.signing.key_id,
            "roster_version": state.roster_version,
            "roster_expires_at": state.roster_expires_at,
            "checkpoint_size": 0 if head is None else head.size,
        }


@dataclass(frozen=True)
class Access:
    """Who may connect."""

    uids: frozenset[int]
    group: int | None = None
    """Group that may open the socket, where agent and key agent are different users."""


def listen(path: Path, access: Access) -> socket.socket:
    """The listening socket, in place of one that a dead key agent left.  The caller holds `lock`."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    previous = os.umask(0o177)
    try:
        with socket_address(path) as address:
            listener.bind(address)
    finally:
        os.umask(previous)
    if access.group is not None:
        if path.stat().st_gid != access.group:  # where it is this process's own, its unit need not let it change any
            os.chown(path, -1, access.group)
        path.chmod(0o660)
    listener.listen(MAX_CONNECTIONS)
    return listener


def lock(folder: Path) -> int:
    """Hold the directory for this process.  Raises KeyStoreError where another key agent runs on it.

    Two of them would each remember a part of what was opened.
    """
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise KeyStoreError(f"another key agent runs on {folder}; stop it first") from None
    return fd


def serve(
    listener: socket.socket, agent: KeyAgent, access: Access, stop: int, log: Log, manager: ServiceManager
) -> None:
    """Serve until the descriptor `stop` becomes readable; the service manager hears that this loop goes round."""
    slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        while True:
            manager.alive()
            ready = selector.select(manager.watchdog_interval)
            if any(key.fd == stop for key, _ in ready):
                return
            if not ready:
                continue
            connection, _ = listener.accept()
            if not _is_allowed(connection, access, log) or not slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=_converse, args=(connection, agent, slots), daemon=True).start()


def _is_allowed(connection: socket.socket, access: Access, log: Log) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    if uid not in access.uids:
        log({"event": "peer_refused", "uid": uid})
        return False
    return True


def _converse(connection: socket.socket, agent: KeyAgent, slots: threading.BoundedSemaphore) -> None:
    mine: set[str] = set()
    try:
        with connection:
            while (frame := protocol.receive(connection)) is not None:
                try:
                    reply = agent.answer(frame, mine)
                finally:
                    frame.close()
                protocol.send(connection, reply)
    except (OSError, RequestError):
        pass  # what is no frame, or a peer that went away: the connection ends, and its sessions with it
    finally:
        for session_id in mine:
            agent.close(session_id)
        slots.release()


def _words(error: Exception) -> str:
    # Names in a bundle are a trainer's, which has seen plaintext: they go into no log.
    return "the trainer's bundle was refused" if isinstance(error, BundleError) else str(error)


def _place(error: BaseException) -> str:
    """Where it happened, without its text, which could hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"


def log_line(fields: Mapping[str, object]) -> None:
    """One JSON line on stderr."""
    import json

    sys.stderr.write(json.dumps({"part": "keyagent", **fields}) + "\n")
    sys.stderr.flush()
