# SPDX-License-Identifier: Apache-2.0
"""Framing between agent and trainer, and all names of the protocol in one place.

A frame is a u32 big-endian length (at most `MAX_FRAME`) and one UTF-8 JSON object whose `type` names the
message; descriptors ride along by SCM_RIGHTS with the frame's first byte, and belong to that frame alone.
Both directions are checked on sending and on receiving: `Channel` parses only what its own side may receive.

Neither torch nor grpc is imported here.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from cloister_workers.errors import PeerClosed, ProtocolError
from cloister_workers.messages import (
    MAX_LOSSES,
    MAX_PROGRESS_PER_SECOND,
    MAX_ROW_ERRORS,
    Cancel,
    CancelledAt,
    Checkpoint,
    DatasetRole,
    Evaluation,
    EvaluationPhase,
    ExceptionKind,
    Failed,
    FailureCode,
    FailureNumber,
    Figure,
    FigureKind,
    FigureName,
    Finding,
    GateRule,
    Judged,
    MetricName,
    Metrics,
    ModelNeed,
    OddRows,
    Pause,
    PausedAt,
    Progress,
    Ready,
    RefusalReason,
    Report,
    Reported,
    Result,
    RowErrors,
    RowReason,
    Rows,
    SpecField,
    Stage,
    StageChange,
    StageStatus,
    Start,
    Verdict,
)

__all__ = [
    "CONTROL_FD",
    "MAX_FRAME",
    "MAX_LOSSES",
    "MAX_PROGRESS_PER_SECOND",
    "MAX_ROW_ERRORS",
    "Cancel",
    "CancelledAt",
    "Channel",
    "Checkpoint",
    "DatasetRole",
    "Evaluation",
    "EvaluationPhase",
    "ExceptionKind",
    "Failed",
    "FailureCode",
    "FailureNumber",
    "Figure",
    "FigureKind",
    "FigureName",
    "Finding",
    "FromAgent",
    "FromTrainer",
    "GateRule",
    "Judged",
    "Message",
    "MetricName",
    "Metrics",
    "ModelNeed",
    "OddRows",
    "Pause",
    "PausedAt",
    "PeerClosed",
    "Progress",
    "ProtocolError",
    "Ready",
    "Received",
    "RefusalReason",
    "Report",
    "Reported",
    "Result",
    "RowErrors",
    "RowReason",
    "Rows",
    "Side",
    "SpecField",
    "Stage",
    "StageChange",
    "StageStatus",
    "Start",
    "Verdict",
    "decode",
    "encode",
]

CONTROL_FD = 3  # the trainer's end of the control socket
MAX_FRAME = 64 * 1024  # bytes of JSON in one frame
_MAX_FDS = 9
_HEADER = struct.Struct(">I")

FromAgent = Start | Cancel | Pause
FromTrainer = (
    Ready
    | StageChange
    | Rows
    | RowErrors
    | Progress
    | OddRows
    | Evaluation
    | Figure
    | Finding
    | Judged
    | Report
    | Checkpoint
    | Result
    | Reported
    | Failed
    | CancelledAt
    | PausedAt
)
Message = FromAgent | FromTrainer

_FROM_AGENT: dict[str, type[Message]] = {"start": Start, "cancel": Cancel, "pause": Pause}
_FROM_TRAINER: dict[str, type[Message]] = {
    "ready": Ready,
    "stage": StageChange,
    "rows": Rows,
    "row_errors": RowErrors,
    "progress": Progress,
    "odd_rows": OddRows,
    "evaluation": Evaluation,
    "figure": Figure,
    "finding": Finding,
    "judged": Judged,
    "report": Report,
    "checkpoint": Checkpoint,
    "result": Result,
    "reported": Reported,
    "failed": Failed,
    "cancelled": CancelledAt,
    "paused": PausedAt,
}
_TYPE_OF = {kind: name for table in (_FROM_AGENT, _FROM_TRAINER) for name, kind in table.items()}


class Side(StrEnum):
    """Which end of the control socket this process is."""

    AGENT = "agent"
    TRAINER = "trainer"


@dataclass(frozen=True)
class Received:
    """One message and the descriptors that came with it; the receiver owns and closes them."""

    message: Message
    fds: tuple[int, ...] = ()


def _checked(kind: type[Message], values: Mapping[str, object]) -> dict[str, Any]:
    checks = {entry.name: entry.metadata["check"] for entry in fields(kind)}
    if values.keys() != checks.keys():
        raise ProtocolError(
            f"message {_TYPE_OF[kind]}: its keys differ from the schema's; run one version on both ends"
        )
    return {name: check(values[name]) for name, check in checks.items()}


def fds_of(message: Message) -> int:
    """How many descriptors ride with this message."""
    if isinstance(message, Start):
        return len(message.inputs)
    return 1 if isinstance(message, Checkpoint | Report | Result | Reported) else 0


def encode(message: Message) -> bytes:
    """One frame. Raises ProtocolError where a value breaks the schema or the frame would be too long."""
    kind = type(message)
    values = _checked(kind, {entry.name: getattr(message, entry.name) for entry in fields(kind)})
    body = json.dumps({"type": _TYPE_OF[kind], **values}, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"message {_TYPE_OF[kind]} takes {len(body)} bytes, more than {MAX_FRAME}; make it shorter")
    return _HEADER.pack(len(body)) + body


def _no_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ProtocolError("a control message gives a key twice; refuse the peer")
    return table


def _no_constant(name: str) -> object:
    raise ProtocolError(f"a control message holds {name}, which is not JSON; refuse the peer")


def decode(body: bytes, receiver: Side) -> Message:
    """The message in a frame's body, as `receiver` may get it. Raises ProtocolError on anything outside the
    schema.
    """
    try:
        values = json.loads(body.decode(), object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("a control message is not a JSON object in UTF-8; refuse the peer") from None
    table = _FROM_TRAINER if receiver is Side.AGENT else _FROM_AGENT
    name = values.pop("type", None) if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in table:
        raise ProtocolError(f"the {receiver} got a message of no known type; refuse the peer")
    kind = table[name]
    return kind(**_checked(kind, values))


class Channel:
    """One end of the control socket. Not for use by two threads at once."""

    def __init__(self, connection: socket.socket, side: Side) -> None:
        connection.setblocking(True)
        self._socket = connection
        self._side = side
        self._buffer = bytearray()
        self._fds: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket and what was received but not handed out."""
        self._drop_fds()
        self._socket.close()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message; blocks until the peer's buffer takes it. The caller keeps and closes its
        `fds`.
        """
        if len(fds) != fds_of(message):
            raise ProtocolError(f"{fds_of(message)} descriptors belong to this message, {len(fds)} were given")
        frame = encode(message)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self._socket.sendmsg([frame], rights)
            # Never an empty rest: a peer may have taken the frame and left, which would read as if it had not.
            if sent < len(frame):
                self._socket.sendall(frame[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise PeerClosed("the other end of the control socket is closed") from None

    def receive(self) -> Received:
        """The next message; blocks for it. Raises PeerClosed at the end of the stream."""
        while True:
            received = self._read_some()
            if received is not None:
                return received

    def poll(self) -> Received | None:
        """The next message if all of it is here, else None; never blocks. Raises PeerClosed at the end of the
        stream.
        """
        while select.select([self._socket], [], [], 0)[0]:
            received = self._read_some()
            if received is not None:
                return received
        return None

    def _read_some(self) -> Received | None:
        # Never reads past the frame under way, so descriptors that arrive can only be that frame's own.
        space = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(self._missing(), space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # it left without reading what it was told; all that it said has been read
            self._drop_fds()
            raise PeerClosed("the other end of the control socket is closed") from None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self._fds.extend(numbers)
        if flags & socket.MSG_CTRUNC or len(self._fds) > _MAX_FDS:
            self._refuse(f"a control message brings more than {_MAX_FDS} descriptors; refuse the peer")
        if not data:
            self._drop_fds()
            raise PeerClosed("the other end of the control socket is closed")
        self._buffer += data
        return self._take() if self._missing() == 0 else None

    def _missing(self) -> int:
        if len(self._buffer) < _HEADER.size:
            return _HEADER.size - len(self._buffer)
        (length,) = _HEADER.unpack_from(self._buffer)
        if not 0 < length <= MAX_FRAME:
            self._refuse(f"a frame claims {length} bytes, the limit is {MAX_FRAME}; refuse the peer")
        return _HEADER.size + int(length) - len(self._buffer)

    def _take(self) -> Received:
        body = bytes(self._buffer[_HEADER.size :])
        self._buffer.clear()
        try:
            message = decode(body, self._side)
        except ProtocolError:
            self._drop_fds()
            raise
        if len(self._fds) != fds_of(message):
            wanted, got = fds_of(message), len(self._fds)
            self._refuse(f"{wanted} descriptors belong to this message, {got} came; refuse the peer")
        fds, self._fds = tuple(self._fds), []
        return Received(message, fds)

    def _refuse(self, text: str) -> None:
        self._drop_fds()
        raise ProtocolError(text)

    def _drop_fds(self) -> None:
        while self._fds:
            with suppress(OSError):
                os.close(self._fds.pop())
