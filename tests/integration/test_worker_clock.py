# SPDX-License-Identifier: Apache-2.0
"""A host's doctor and a served control plane whose clock differs, or which does not know the host."""

import io
import time
from pathlib import Path

import pytest

from cloister.errors import PermissionDeniedError
from cloister.tls import tls_key_pem
from cloister_server.journal import Journal
from cloister_workers.config import AgentConfig, HostPaths, Limits
from cloister_workers.doctor import ask
from served_site import SITE, Founded, Keys, served, sqlite_url

AHEAD = 1200


def host_of(founded: Founded, port: int, keys: Keys, certificate: str) -> AgentConfig:
    return AgentConfig(
        host_id="host-1",
        site=SITE,
        endpoint=f"localhost:{port}",
        ca_pem=founded.ca_pem.encode(),
        certificate_pem=certificate.encode(),
        key_pem=tls_key_pem(keys.tls),
        paths=HostPaths(founded.directory),
        limits=Limits(),
    )


def test_the_skew_of_a_served_control_plane_is_measured(tmp_path: Path) -> None:
    """What the control plane's clock is ahead by is what the doctor hears, to the second and the time of a call."""
    founded = Founded(tmp_path)
    with served(founded, sqlite_url(tmp_path), Journal(io.StringIO()), clock=lambda: int(time.time()) + AHEAD) as live:
        answer = ask(host_of(founded, live.port, founded.hosts["host-1"], founded.certificates["host-1"]))
    longest = answer.received - answer.sent
    assert AHEAD - 1 - longest <= answer.skew <= AHEAD


def test_a_host_that_is_not_known_hears_why(tmp_path: Path) -> None:
    """A certificate of the site's authority whose key the roster does not pin is refused in words, not as no answer."""
    founded, stranger = Founded(tmp_path), Keys()
    certificate = founded.certificate(founded.uri("host", "host-1"), stranger, kind="host")
    with served(founded, sqlite_url(tmp_path), Journal(io.StringIO())) as live:
        config = host_of(founded, live.port, stranger, certificate)
        with pytest.raises(PermissionDeniedError):
            ask(config)
