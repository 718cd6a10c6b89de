# SPDX-License-Identifier: Apache-2.0
"""Errors of the key agent.

* KeyAgentError            (a WorkerError) `reason` is what goes over the socket
  * RequestError           a request outside the protocol
  * SessionError           no such session: never opened, closed, or its connection ended
  * KeyStoreError          a key file is missing, malformed or readable by others
  * MemoryDamagedError     what this host remembers is missing or malformed: starting anew would allow a rollback
  * TransferError          a descriptor could not be read or written
    * DiskFullError        because its file system is full
    * ReaderGoneError      because nobody reads the pipe any more
  * ResultError            what a trainer made lacks evidence that a result of its kind must have
  * Refused                client side: the key agent said no, `reason` and message are its own
  * KeyAgentGone           client side: no answer
"""

from __future__ import annotations

from typing import ClassVar

from cloister_workers.errors import WorkerError


class KeyAgentError(WorkerError):
    """Something about the key agent went wrong."""

    reason: ClassVar[str] = "KEY_AGENT"


class RequestError(KeyAgentError):
    """A request outside the protocol."""

    reason: ClassVar[str] = "BAD_REQUEST"


class SessionError(KeyAgentError):
    """No such session."""

    reason: ClassVar[str] = "UNKNOWN_SESSION"


class KeyStoreError(KeyAgentError):
    """A key file cannot be used."""

    reason: ClassVar[str] = "BAD_KEY_STORE"


class MemoryDamagedError(KeyAgentError):
    """What this host remembers cannot be read."""

    reason: ClassVar[str] = "MEMORY_DAMAGED"


class TransferError(KeyAgentError):
    """A descriptor could not be read or written."""

    reason: ClassVar[str] = "TRANSFER_FAILED"


class DiskFullError(TransferError):
    """The file system of a descriptor is full."""

    reason: ClassVar[str] = "DISK_FULL"


class ReaderGoneError(TransferError):
    """Nobody reads the pipe any more."""

    reason: ClassVar[str] = "READER_GONE"


class ResultError(KeyAgentError):
    """What a trainer made may not be signed for."""

    reason: ClassVar[str] = "BAD_RESULT"


class Refused(KeyAgentError):
    """The key agent refused; `code` is its reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class KeyAgentGone(KeyAgentError):
    """The key agent does not answer."""
