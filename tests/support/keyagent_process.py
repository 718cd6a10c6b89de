# SPDX-License-Identifier: Apache-2.0
"""A real key agent for tests: its directory, its process, and pipes around its calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builders import Keys, Sealed, Site, frozen_memory
from cloister.evidence.opening import JobOpening, ReleaseOpening
from cloister.evidence.signatures import Statement, b64
from cloister_workers.config import HostPaths
from cloister_workers.keyagent import client
from cloister_workers.keyagent.errors import Refused
from cloister_workers.keyagent.memory import STATE, Remembered, write_state


def write_directory(root: Path, site: Site, host: str = "host-1", keys: Keys | None = None) -> HostPaths:
    """Make a host's directory with the keys of a host of the site."""
    paths = HostPaths(root)
    for folder in (paths.keyagent, paths.agent, paths.cache, paths.spool):
        folder.mkdir(parents=True, mode=0o700)
    held = keys or site.hosts[host]
    secrets = {"signing.key": held.signing.export(), "sealing.key": str(held.identity)}
    for name, text in {**secrets, "root.pub": b64(site.root.public)}.items():
        (paths.keyagent / name).write_text(text)
        (paths.keyagent / name).chmod(0o600)
    (paths.keyagent / "site.json").write_text(json.dumps({"site": "test", "id": host}))
    write_state(paths.keyagent / STATE, Remembered())
    return paths


@dataclass
class RunningKeyAgent:
    """A process that answers."""

    paths: HostPaths
    process: subprocess.Popen[bytes]
    log: list[dict[str, object]] = field(default_factory=list)

    def status(self) -> client.Status:
        connection = client.Connection(self.paths.socket)
        try:
            return client.status(connection)
        finally:
            connection.close()

    def open_job(
        self, site: Site, opening: JobOpening, roster: Statement | None = None, *, sandboxed: bool = True
    ) -> client.JobSession:
        return client.JobSession(self.paths.socket, opening, roster or site.sign_roster(), sandboxed=sandboxed)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running_keyagent(paths: HostPaths, *options: str) -> Iterator[RunningKeyAgent]:
    """Start `cloister-worker keyagent` and end it with SIGTERM."""
    command = [sys.executable, "-m", "cloister_workers", "keyagent", "--dir", str(paths.root), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    agent = RunningKeyAgent(paths, process)
    stream = process.stderr
    assert stream is not None
    first = stream.readline()
    agent.log.append(json.loads(first) if first.startswith(b"{") else {"event": first.decode()})
    assert agent.log[0]["event"] == "ready", agent.log

    def collect() -> None:
        for line in stream:
            agent.log.append(json.loads(line))

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        yield agent
    finally:
        process.terminate()
        process.wait(20)
        reader.join()
        stream.close()


def decrypt(
    session: client.JobSession,
    sealed: Sealed,
    holder: Keys,
    *,
    ciphertext: bytes | None = None,
    wrap: bytes | None = None,
) -> bytes:
    """The plaintext of an object, through a real file and a real pipe; raises what the client raises."""
    received = bytearray()
    read_end, write_end = os.pipe()
    source = os.memfd_create("ciphertext")
    os.write(source, sealed.ciphertext if ciphertext is None else ciphertext)

    def drain() -> None:
        with os.fdopen(read_end, "rb") as stream:
            received.extend(stream.read())

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        session.decrypt(sealed.id, sealed.wrap_for(holder) if wrap is None else wrap, source, write_end)
    finally:
        os.close(write_end)
        os.close(source)
        reader.join()
        session.received = bytes(received)  # type: ignore[attr-defined]  # for tests that expect a refusal
    return bytes(received)


def seal(
    session: client.JobSession,
    kind: str,
    content: bytes,
    step: int = 10,
    *,
    figures: bytes = b"",
    verdict: float | None = None,
) -> tuple[client.Sealed, bytes]:
    """What the key agent makes of a trainer's bundle, and the ciphertext."""
    metrics = {"eval_accuracy": 0.9, **({} if verdict is None else {"debias_verdict": verdict})}
    source, target = frozen_memory(content), os.memfd_create("ciphertext")
    try:
        made = session.seal(kind, step, metrics, {"eval_accuracy": 0.125}, source, target, figures=figures)
        return made, os.pread(target, made.size + 1, 0)
    finally:
        os.close(source)
        os.close(target)


def refusal(
    agent: RunningKeyAgent,
    site: Site,
    opening: JobOpening,
    roster: Statement | None = None,
    *,
    sandboxed: bool = True,
) -> tuple[str, str]:
    """Reason and message with which the key agent refuses an opening."""
    with pytest.raises(Refused) as refused:
        agent.open_job(site, opening, roster, sandboxed=sandboxed)
    return refused.value.code, str(refused.value)


def release_refusal(
    agent: RunningKeyAgent, site: Site, opening: ReleaseOpening, wrap: bytes, roster: Statement | None = None
) -> tuple[str, str]:
    """Reason and message with which the key agent refuses a release."""
    connection = client.Connection(agent.paths.socket)
    try:
        with pytest.raises(Refused) as refused:
            client.open_release(connection, opening, roster or site.sign_roster(), wrap)
    finally:
        connection.close()
    return refused.value.code, str(refused.value)
