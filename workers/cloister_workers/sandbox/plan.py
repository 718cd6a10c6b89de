# SPDX-License-Identifier: Apache-2.0
"""What the agent tells the launcher process, resolved to paths, numbers and descriptors.

Both ends are this package under the same interpreter, and the bytes travel in a memfd that only the agent wrote;
hence marshal, which costs no import. For the same reason `Plan` is a plain class: json, typing and dataclasses
would double the launcher's start-up time.
"""

from __future__ import annotations

import marshal


class Plan:
    """Everything the launcher needs; nothing is looked up in its own environment."""

    __slots__ = (
        "argv",
        "binds",
        "cwd",
        "devices",
        "env",
        "families",
        "fds",
        "files",
        "limits",
        "links",
        "loopback",
        "own_limits",
        "scratch_bytes",
        "scratch_exec",
    )

    def __init__(  # noqa: PLR0913  one argument per attribute, by keyword
        self,
        *,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        fds: dict[int, int],
        limits: list[tuple[int, int]],
        own_limits: list[tuple[int, int]],
        binds: list[tuple[str, str, bool]] | None = None,
        devices: list[str] | None = None,
        links: list[tuple[str, str]] | None = None,
        files: list[tuple[str, str]] | None = None,
        scratch_bytes: int = 0,
        scratch_exec: bool = False,
        loopback: bool = False,
        families: list[int] | None = None,
    ) -> None:
        self.argv = argv  # the program; argv[0] is a path inside
        self.env = env  # its whole environment
        self.cwd = cwd
        self.fds = fds  # descriptor number inside -> number in the launcher
        self.limits = limits  # (RLIMIT_*, value) for every process inside
        self.own_limits = own_limits  # the same for the program and what it starts
        self.binds = binds or []  # (source, target, executable): read-only
        self.devices = devices or []  # device nodes, at the same path
        self.links = links or []  # (path, what it points to)
        self.files = files or []  # (path, content)
        self.scratch_bytes = scratch_bytes
        self.scratch_exec = scratch_exec
        self.loopback = loopback
        self.families = families or []  # address families that socket() may use

    def encode(self) -> bytes:
        """Return the bytes that `decode` reads."""
        return marshal.dumps([getattr(self, name) for name in self.__slots__])

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """Read what `encode` wrote; only ever given bytes of our own agent."""
        values = marshal.loads(data)  # noqa: S302  written by the process that started this one
        return cls(**dict(zip(cls.__slots__, values, strict=True)))
