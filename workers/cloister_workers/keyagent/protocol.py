# SPDX-License-Identifier: Apache-2.0
"""Frames between agent and key agent, and the strict reading of a request.

A frame is a u32 big-endian length (at most `MAX_FRAME`) and one UTF-8 JSON object; descriptors ride along by
SCM_RIGHTS with the frame's first byte.  Requests and answers alternate on a connection.  A request has `op`; an
answer is an object without `error`, or {"error": reason, "message": text}.  Plaintext never goes into a frame.

    status         {}                                                      what this host remembers
    update_roster  {roster}                                                a newer roster
    open_job       {roster, opening, sandboxed}                            session, objects
    decrypt        {session, object_id, wrap}       + 2 fds (in, out)      size
    seal           {session, kind, step, metrics, metrics_before, figures}
                                                    + 2 fds (in, out)      manifest, trailer, wraps, result
    open_release   {roster, opening, wrap}                                 wrap, statement
    close          {session}                                               {}
"""

from __future__ import annotations

import array
import base64
import binascii
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cloister_workers.keyagent.errors import RequestError

MAX_FRAME = 16 * 1024 * 1024
"""Bytes of JSON in one frame: a roster of some thousand people and the documents of one opening."""
MAX_FDS = 2
_HEADER = struct.Struct(">I")

T = TypeVar("T")


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address of the socket at `path`: a unix address holds 107 bytes (unix(7)), however deep the folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@dataclass(frozen=True)
class Frame:
    """One message and the descriptors that came with it; the receiver owns and closes them."""

    body: Mapping[str, object]
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


def send(connection: socket.socket, body: Mapping[str, object], fds: Sequence[int] = ()) -> None:
    """Send one frame; the caller keeps its descriptors.  Raises RequestError where it is too long, OSError."""
    text = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MAX_FRAME:
        raise RequestError(f"a frame of {len(text)} bytes is longer than {MAX_FRAME}")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    data = _HEADER.pack(len(text)) + text
    sent = connection.sendmsg([data], rights)
    # Never an empty rest: a peer may have taken the frame and left, which would read as if it had not.
    if sent < len(data):
        connection.sendall(memoryview(data)[sent:])


def receive(connection: socket.socket) -> Frame | None:
    """The next frame, or None at the end of the stream.  Raises RequestError for what is no frame, OSError."""
    space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(_HEADER.size, space, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    fds = _descriptors(ancillary)
    try:
        _check(not flags & socket.MSG_CTRUNC, f"a frame brings more than {MAX_FDS} descriptors")
        (length,) = _HEADER.unpack(data + _exactly(connection, _HEADER.size - len(data)))
        _check(length <= MAX_FRAME, f"a frame claims {length} bytes, the limit is {MAX_FRAME}")
        return Frame(_parse(_exactly(connection, length)), fds)
    except BaseException:
        Frame({}, fds).close()
        raise


def _check(holds: bool, text: str) -> None:  # noqa: FBT001
    if not holds:
        raise RequestError(text)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    numbers = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return tuple(numbers)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            raise RequestError("the stream ends inside a frame")
        filled += count
    return bytes(data)


def _parse(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RequestError("a frame is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise RequestError("a frame is not a JSON object")
    return value


def _refuse_constant(name: str) -> object:
    raise RequestError(f"a frame holds {name}, which is not JSON")


# ---------------------------------------------------------------- values of a request
def encode(data: bytes) -> str:
    """Bytes as they stand in a frame."""
    return base64.b64encode(data).decode("ascii")


def take(body: Mapping[str, object], name: str, kind: type[T]) -> T:
    """The value of a field.  Raises RequestError unless it is there and of this type (True is no integer)."""
    value = body.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(f"field {name!r} is not of type {kind.__name__}")
    return value


def take_bytes(body: Mapping[str, object], name: str) -> bytes:
    """A field of base64.  Raises RequestError."""
    try:
        return base64.b64decode(take(body, name, str), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"field {name!r} is not base64") from None


def take_object(body: Mapping[str, object], name: str) -> dict[str, object]:
    """A field that holds an object.  Raises RequestError."""
    return take(body, name, dict)


def take_list(body: Mapping[str, object], name: str) -> list[object]:
    """A field that holds a list.  Raises RequestError."""
    return take(body, name, list)


def take_all_bytes(body: Mapping[str, object], name: str) -> tuple[bytes, ...]:
    """A field that holds a list of base64.  Raises RequestError."""
    return tuple(take_bytes({name: item}, name) for item in take_list(body, name))


def take_objects(body: Mapping[str, object], name: str) -> tuple[dict[str, object], ...]:
    """A field that holds a list of objects.  Raises RequestError."""
    return tuple(take_object({name: item}, name) for item in take_list(body, name))
