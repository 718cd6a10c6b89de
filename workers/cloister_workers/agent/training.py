# SPDX-License-Identifier: Apache-2.0
"""The trainer's process, its control socket, and the streams of plaintext into it.

Plaintext goes from the key agent through a pipe into the trainer; the agent only holds the ends for a moment.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from cloister_workers.agent.errors import HostFault, JobFault
from cloister_workers.errors import PeerClosed, ProtocolError
from cloister_workers.keyagent.errors import KeyAgentError, ReaderGoneError, Refused
from cloister_workers.messages import Figure, Finding, Judged
from cloister_workers.protocol import CONTROL_FD, Channel, DatasetRole, FromAgent, Received, Side, Start
from cloister_workers.sandbox.errors import SandboxError
from cloister_workers.sandbox.spec import SandboxSpec

BURST, PER_SECOND = 400.0, 40.0
"""Messages that a trainer may send at once and lasting; an honest one stays far below (MAX_PROGRESS_PER_SECOND)."""


EXIT_SECONDS = 10.0
"""Time in which a trainer that has closed its socket must end."""


class Process(Protocol):
    """What `sandbox.launch` returns, as far as it is used here."""

    @property
    def model_path(self) -> str | None: ...
    @property
    def auxiliary_path(self) -> str | None: ...
    @property
    def scratch_path(self) -> str: ...
    @property
    def returncode(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


Launch = Callable[[Sequence[str], SandboxSpec], Process]
Decrypt = Callable[[int], object]
"""Writes the plaintext of one input into a descriptor; raises KeyAgentError."""


@dataclass(frozen=True)
class Place:
    """What a trainer gets of this host."""

    launch: Launch
    scratch_bytes: int
    memory_bytes: int | None
    file_bytes: int
    allow_gpu: bool
    threads: int = 0
    """0 for one for each core that the agent may use."""


class Trainer:
    """A running trainer; context manager, at whose end nothing of it is left.

    The main thread talks; `kill` may be called from any.
    """

    def __init__(
        self, place: Place, model_dir: Path, clock: Callable[[], float], auxiliary_dir: Path | None = None
    ) -> None:
        """Start it, with the folders of the job's models.  Raises HostFault."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            spec = SandboxSpec(
                model_dir=model_dir,
                auxiliary_dir=auxiliary_dir,
                scratch_bytes=place.scratch_bytes,
                memory_bytes=place.memory_bytes,
                file_bytes=place.file_bytes,
                pass_fds={CONTROL_FD: theirs.fileno()},
                allow_gpu=place.allow_gpu,
                env={"OMP_NUM_THREADS": str(place.threads)} if place.threads else {},
            )
            self._process = place.launch([sys.executable, "-I", "-m", "cloister_workers.trainer"], spec)
        except SandboxError:
            ours.close()
            raise HostFault("SANDBOX_FAILED", "the sandbox of the worker host could not be entered") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = Channel(ours, Side.AGENT)
        self._budget = _Budget(clock)
        self._feeds: list[threading.Thread] = []
        self.feed_failure: KeyAgentError | OSError | None = None
        """Why an input did not flow to its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        self._channel.close()
        for feed in self._feeds:
            feed.join()  # its pipe has no reader any more, so it ends

    def kill(self) -> None:
        """End it at once; returns immediately."""
        self._process.kill()

    def start(
        self,
        spec: Mapping[str, object],
        attempt: int,
        inputs: Mapping[DatasetRole, Decrypt],
        gate: Mapping[str, object],
    ) -> None:
        """Hand over the job and let its inputs flow; `gate` is that of the verified policy.

        Raises ProtocolError; that the trainer has ended is noticed by `next`, after its last words.
        """
        with ExitStack() as stack:
            ends: list[int] = []
            for decrypt in inputs.values():
                read_end, write_end = os.pipe()
                stack.callback(os.close, read_end)
                ends.append(read_end)
                feed = threading.Thread(target=self._feed, args=(decrypt, write_end), name="feed", daemon=True)
                self._feeds.append(feed)
                feed.start()
            message = Start(
                spec=dict(spec),
                inputs={role: number for number, role in enumerate(inputs)},
                model_dir=self._process.model_path or "/model",
                scratch=self._process.scratch_path,
                attempt=attempt,
                gate=dict(gate),
                auxiliary_dir=self._process.auxiliary_path or "",
            )
            self.send(message, ends)

    def send(self, message: FromAgent, fds: Sequence[int] = ()) -> None:
        """Tell it something; that it has ended is noticed by `next`, after its last words."""
        try:
            self._channel.send(message, fds)
        except PeerClosed:
            return

    def next(self, seconds: float) -> Received | None:
        """The next message, or None after so many seconds without one.

        Raises PeerClosed when it has ended, JobFault when it says what it may not.
        """
        try:
            if not select.select([self._channel], [], [], seconds)[0]:
                return None
            received = self._channel.poll()
            # Figures come all at once, at the end: not their pace is bounded but their number (`FigureBook`).
            if received is not None and not isinstance(received.message, Figure | Finding | Judged):
                self._budget.spend()
            return received
        except PeerClosed:
            raise
        except ProtocolError:
            raise JobFault("PROTOCOL", "the trainer sent what its protocol does not allow; it was ended") from None

    def exit_code(self) -> int:
        """How it ended; minus the signal where one ended it.  One that said goodbye and stays is ended."""
        try:
            return self._process.wait(EXIT_SECONDS)
        except TimeoutError:
            self.kill()
            return self._process.wait()

    def _feed(self, decrypt: Decrypt, write_end: int) -> None:
        try:
            decrypt(write_end)
        except Refused as refused:
            # A trainer that has read enough closes its end, and cannot take a part for the whole.
            if refused.code != ReaderGoneError.reason:
                self._end_feed(refused)
        except (KeyAgentError, OSError) as error:
            self._end_feed(error)
        finally:
            os.close(write_end)

    def _end_feed(self, error: KeyAgentError | OSError) -> None:
        # Before the pipe is closed: a trainer must never take a cut input for a whole one.
        self.feed_failure = self.feed_failure or error
        self.kill()
        self._process.wait()


class _Budget:
    """A bucket of messages that refills with time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = BURST
        self._at = clock()

    def spend(self) -> None:
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND) - 1
        self._at = now
        if self._left < 0:
            raise ProtocolError("more messages than a trainer may send")
