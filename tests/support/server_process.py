# SPDX-License-Identifier: Apache-2.0
"""A control plane as a process of its own, as a service manager would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from cloister.evidence.signatures import b64
from cloister.tls import tls_key_pem
from served_site import ORIGIN, SITE, Caller, Founded
from waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
_CONFIG = """\
[site]
name = "{site}"
roster_file = "root/roster.dsse"
root_public = "{root}"
[listen]
address = "127.0.0.1:0"
port_file = "{name}.port"
stop_grace_seconds = 30
[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "ca.crt"
[database]
url = "{url}"
[store]
directory = "store"
reserve_bytes = 1048576
[log]
origin = "{origin}"
key_file = "log.key"
[queue]
lease_seconds = {lease_seconds}
heartbeat_seconds = 1
sweep_seconds = 0.2
"""


@dataclass
class ServerProcess:
    """A process that serves, and callers of it."""

    founded: Founded
    process: subprocess.Popen[bytes]
    config: Path
    log: Path
    port: int
    channels: list[grpc.Channel] = field(default_factory=list)
    _callers: dict[str, Caller] = field(default_factory=dict)

    def caller(self, name: str) -> Caller:
        """A person or host of the roster."""
        if name not in self._callers:
            self._callers[name] = self.fresh(name)
        return self._callers[name]

    def fresh(self, name: str) -> Caller:
        """The same on a new connection."""
        keys = {**self.founded.people, **self.founded.hosts}[name]
        credentials = grpc.ssl_channel_credentials(
            self.founded.ca_pem.encode(), tls_key_pem(keys.tls), self.founded.certificates[name].encode()
        )
        # Without this, channels of one process to one port share a connection, and none would see a new certificate.
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = grpc.secure_channel(f"localhost:{self.port}", credentials, options=options)
        self.channels.append(channel)
        return Caller(name, keys, channel)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def write_config(founded: Founded, url: str, name: str = "server", extra: str = "", *, lease_seconds: int = 60) -> Path:
    """A configuration file in the site's folder, with `NAME.port` for the port; `extra` stands at its end."""
    root = b64(founded.custody.root_key().public)
    path = founded.directory / f"{name}.toml"
    names = {"site": SITE, "root": root, "name": name, "origin": ORIGIN}
    path.write_text(_CONFIG.format(url=url, lease_seconds=lease_seconds, **names) + extra)
    return path


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    folders = os.pathsep.join(str(ROOT / name) for name in ("client", "server", "audit"))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": folders, **extra}


@contextmanager
def server_process(
    founded: Founded, url: str, name: str = "server", *, extra: str = "", given: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Serve the site until the context ends; `given` is added to the environment."""
    config = write_config(founded, url, name, extra)
    port_file, log = founded.directory / f"{name}.port", founded.directory / f"{name}.log"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cloister_server", "serve", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output, env=environment(given or {}))

    def bound() -> int:
        assert process.poll() is None, log.read_text()
        return int(port_file.read_text()) if port_file.exists() else 0

    server: ServerProcess | None = None
    try:
        server = ServerProcess(founded, process, config, log, eventually(bound, "the server's port"))
        yield server
    finally:
        for channel in [] if server is None else server.channels:
            channel.close()
        process.terminate()
        process.wait(60)
