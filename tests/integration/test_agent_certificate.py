# SPDX-License-Identifier: Apache-2.0
"""An agent's way to a served control plane while its certificate is renewed."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.api.v1 import identity_pb2, workers_pb2
from cloister.errors import PermissionDeniedError
from cloister.evidence.roster import Roster
from cloister.tls import spki_sha256, tls_key_pem
from cloister.wire import statement_to_proto
from cloister_server.journal import Journal
from cloister_workers.agent.control import ControlPlane
from cloister_workers.agent.process import renewed_channel
from cloister_workers.config import AgentConfig, HostPaths, Limits
from served_site import SITE, Founded, Keys, ServedSite, served, sqlite_url


def installed(folder: Path, keys: Keys, certificate: str) -> tuple[bytes, bytes]:
    """Put a pair into the agent's folder, each file in place of the old one."""
    pair = (certificate.encode(), tls_key_pem(keys.tls))
    for name, data in zip(("tls.crt", "tls.key"), pair, strict=True):
        (folder / "partial").write_bytes(data)
        (folder / "partial").replace(folder / name)
    return pair


def publish(live: ServedSite, pin: str) -> None:
    """A roster that also pins this key for host-1."""

    def pinned(roster: Roster) -> Roster:
        hosts = (
            replace(host, tls_sha256=(*host.tls_sha256, pin)) if host.id == "host-1" else host for host in roster.hosts
        )
        return replace(roster, hosts=tuple(hosts))

    statement = live.founded.sign_roster(pinned)
    request = identity_pb2.PublishRosterRequest(roster=statement_to_proto(statement))
    live.caller("dana").identity.PublishRoster(request, timeout=30)


def test_the_next_call_shows_the_renewed_certificate(tmp_path: Path) -> None:
    """After new files the control plane sees the new key at the next call, and a call that was waiting ends well."""
    founded, folder = Founded(tmp_path), tmp_path / "host" / "agent"
    folder.mkdir(parents=True)
    certificate, key = installed(folder, founded.hosts["host-1"], founded.certificates["host-1"])
    request, renewed, stop = workers_pb2.LeaseWorkRequest(), Keys(), threading.Event()
    with served(founded, sqlite_url(tmp_path), Journal(io.StringIO())) as live:
        config = AgentConfig(
            host_id="host-1",
            site=SITE,
            endpoint=f"localhost:{live.port}",
            ca_pem=founded.ca_pem.encode(),
            certificate_pem=certificate,
            key_pem=key,
            paths=HostPaths(tmp_path / "host"),
            limits=Limits(),
        )
        way = renewed_channel(config)
        control = ControlPlane(way.stubs, lambda _: None)
        assert control.lease_work(request, stop) is not None
        waiting = way.stubs().worker.LeaseWork.future(workers_pb2.LeaseWorkRequest(wait_seconds=2), timeout=30)

        installed(folder, renewed, founded.certificate(founded.uri("host", "host-1"), renewed, kind="host"))
        with pytest.raises(PermissionDeniedError):
            control.lease_work(request, stop)
        denied = live.entries(action="session.denied")[-1].event
        assert spki_sha256(renewed.tls) == denied.actor.cert_sha256
        publish(live, spki_sha256(renewed.tls))
        answer = control.lease_work(request, stop)
        assert answer is not None
        assert not waiting.result().HasField("job")
        way.close()
