# SPDX-License-Identifier: Apache-2.0
"""`cloister-worker doctor`: what is wrong with this host, and what to do about it.

`selftest` says whether the host can work at all; the doctor also what will soon stop it, and asks the control plane.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509

from cloister.api.v1 import identity_pb2
from cloister.api.v1.identity_pb2_grpc import IdentityServiceStub
from cloister.channel import translate
from cloister.errors import CloisterError, ConnectError
from cloister.findings import (
    Check,
    Diagnosis,
    Finding,
    as_json,
    as_text,
    exit_status,
    failure,
    of_expiry,
    of_skew,
    ok,
    warning,
)
from cloister_workers.agent.process import gpus, launcher_of
from cloister_workers.config import AgentConfig, HostPaths, load_agent
from cloister_workers.keyagent import client
from cloister_workers.keyagent.errors import KeyAgentError
from cloister_workers.sandbox.probe import ProbeResult, probe

WARN_SECONDS = 14 * 24 * 3600
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """When a call to the control plane was sent and answered by this host's clock, and what time it was there."""

    sent: float
    received: float
    server_time: int
    """Whole Unix seconds; 0 where the control plane is of a version that does not tell."""

    @property
    def skew(self) -> float:
        """Seconds by which the control plane's clock is ahead, at the least.

        Its second lasted from `server_time` to one later, somewhere between sending and receiving: what lies within
        those bounds is no skew that anybody could tell.
        """
        if self.server_time > self.received:
            return self.server_time - self.received
        return min(0.0, self.server_time + 1 - self.sent)


@dataclass(frozen=True)
class Senses:
    """How the doctor looks at what lies outside the host's directory."""

    status: Callable[[Path], client.Status]
    """The key agent's, at a socket.  Raises KeyAgentError."""
    sandbox: Callable[[], ProbeResult]
    gpus: Callable[[], int]
    free: Callable[[Path], int]
    """Free bytes of the file system that a folder lies on."""
    ask: Callable[[AgentConfig], Answer]
    """The control plane's answer to this host.  Raises CloisterError."""


def run(root: Path, trainer_socket: Path | None = None, *, as_json_text: bool = False) -> int:
    """Print every finding; the exit status is 1 where something failed.  Raises ConfigError."""
    senses = Senses(
        status=_ask_status,
        sandbox=lambda: probe(launcher_of(trainer_socket)),
        gpus=gpus,
        free=lambda place: shutil.disk_usage(place).free,
        ask=ask,
    )
    found = diagnose(load_agent(root), senses, int(time.time()))
    sys.stdout.write(as_json(found) if as_json_text else as_text(found))
    return exit_status(found)


def diagnose(config: AgentConfig, senses: Senses, now: int) -> list[Diagnosis]:
    """What every check finds; `now` is Unix seconds."""
    return [Diagnosis(name, tuple(check())) for name, check in _checks(config, senses, now)]


def _checks(config: AgentConfig, senses: Senses, now: int) -> Iterator[tuple[str, Check]]:
    yield "files", lambda: _files(config.paths)
    yield "certificate", lambda: _certificate(config.certificate_pem, now)
    yield "key agent", lambda: _key_agent(config, senses, now)
    yield "sandbox", lambda: _sandbox(senses.sandbox())
    yield "device", lambda: _device(senses.gpus())
    yield "disk", lambda: _disk(config, senses.free(config.paths.spool))
    yield "control plane", lambda: _control_plane(config, senses)


def _files(paths: HostPaths) -> Iterable[Finding]:
    """The agent's key is the agent's alone, and the key agent's directory is closed to this user."""
    fine = True
    key = paths.agent / "tls.key"
    for path in (key, paths.agent):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            fine = False
            yield failure(f"{path} has mode {mode:04o}: others can read it", f"chmod go= {path}")
    if stat.S_IMODE(paths.keyagent.stat().st_mode) & 0o007:
        fine = False
        yield failure(f"{paths.keyagent} is open to everybody", f"chmod o= {paths.keyagent}")
    if os.geteuid() != 0 and paths.keyagent.stat().st_uid == os.geteuid():
        yield warning(
            f"{paths.keyagent} belongs to the agent's own user: who takes over the agent has the host's keys",
            "run the key agent as a user of its own, with --agent-user",
        )
    elif fine:
        yield ok("keys are private")


def _certificate(pem: bytes, now: int) -> Iterable[Finding]:
    remedy = "send request.json to the root custodian again, then: cloister-worker install"
    try:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:
        yield failure("tls.crt is damaged", remedy)
        return
    yield of_expiry("this host's certificate", end - now, WARN_SECONDS, remedy)


def _key_agent(config: AgentConfig, senses: Senses, now: int) -> Iterable[Finding]:
    try:
        status = senses.status(config.paths.socket)
    except KeyAgentError as error:
        yield failure(str(error), "systemctl start cloister-keyagent, and see its log")
        return
    if status.host != config.host_id:
        yield failure(
            f"the key agent is that of host {status.host}, not of {config.host_id}", "start it with this --dir"
        )
        return
    yield ok(f"answers for host {status.host}, saw the log up to entry {status.checkpoint_size}")
    if status.roster_version == 0:
        yield ok("no roster seen yet; the first job or release brings it")
        return
    what = f"roster version {status.roster_version}"
    remedy = "the root custodian must sign a newer one; the next job or release brings it"
    yield of_expiry(what, status.roster_expires_at - now, WARN_SECONDS, remedy)


def _sandbox(found: ProbeResult) -> Iterable[Finding]:
    if found.available:
        yield ok("own network, no keys, read-only files")
    else:
        yield failure(found.reason, "allow what is named; until then jobs are refused unless the policy allows it")


def _device(count: int) -> Iterable[Finding]:
    if count:
        yield ok(f"{count} GPUs")
    else:
        yield warning("no GPU: jobs run on the CPU", "where there should be one, load the driver (nvidia-smi)")


def _disk(config: AgentConfig, left: int) -> Iterable[Finding]:
    reserve = config.limits.reserve_bytes
    text = f"{left >> 20} MiB free for spool and cache, reserve {reserve >> 20} MiB"
    if left < reserve:
        yield failure(text, "free space: jobs are handed back")
    elif left < config.limits.scratch_bytes:
        yield warning(text, "free space: a model and its result may not fit")
    else:
        yield ok(text)


def _control_plane(config: AgentConfig, senses: Senses) -> Iterable[Finding]:
    try:
        answer = senses.ask(config)
    except ConnectError:
        yield failure(
            f"no answer over mutual TLS from {config.endpoint} within {CONNECT_SECONDS:g} s",
            "see that the server runs, that the network lets this host through, that both certificates hold, and that "
            "both clocks are right",
        )
        return
    except CloisterError as error:
        remedy = "see docs/reference/errors.md; `cloister-server doctor` on the control plane says more"
        yield failure(f"{config.endpoint} refuses this host: {error}", remedy)
        return
    yield ok(f"{config.endpoint} answers with mutual TLS")
    if answer.server_time:
        yield of_skew("the control plane's clock", answer.skew)


def _ask_status(socket: Path) -> client.Status:
    connection = client.Connection(socket)
    try:
        return client.status(connection)
    finally:
        connection.close()


def ask(config: AgentConfig, clock: Callable[[], float] = time.time) -> Answer:
    """Ask the control plane who this host is; `clock` gives Unix seconds.  Raises CloisterError."""
    credentials = grpc.ssl_channel_credentials(config.ca_pem, config.key_pem, config.certificate_pem)
    with grpc.secure_channel(config.endpoint, credentials) as connection:
        try:
            grpc.channel_ready_future(connection).result(timeout=CONNECT_SECONDS)
            sent = clock()
            told = IdentityServiceStub(connection).WhoAmI(identity_pb2.WhoAmIRequest(), timeout=CONNECT_SECONDS)
            return Answer(sent, clock(), told.server_time.seconds)
        except grpc.FutureTimeoutError:
            raise ConnectError(f"{config.endpoint} does not answer") from None
        except grpc.RpcError as error:
            raise translate(error) from None
