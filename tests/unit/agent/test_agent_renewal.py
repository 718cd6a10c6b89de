# SPDX-License-Identifier: Apache-2.0
"""Which certificate the agent calls with."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloister.admin.admit import admit_host
from cloister.admin.root import create_root
from cloister.enrolment import EnrolmentRequest
from cloister.evidence.signatures import SigningKey, b64
from cloister.sealed.keys import Identity
from cloister.tls import generate_tls_key, make_csr, tls_key_pem
from cloister_workers.agent.renewal import CERTIFICATE, KEY, Pair, RenewedChannel

NOW = 1_800_000_000


@dataclass
class Opened:
    """A channel that remembers what it was opened with; it stands for its stubs too."""

    pair: Pair
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Host:
    """A host's folder and what the agent made of it."""

    folder: Path
    opened: list[Opened] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def certified(self, count: int) -> Pair:
        """A good pair, another one each time."""
        key = generate_tls_key()
        public, recipient = b64(SigningKey.generate().public), str(Identity.generate().recipient)
        request = EnrolmentRequest("host", make_csr(key), public, recipient)
        custody = create_root(self.folder / f"root-{count}", "test", endpoint="localhost:1")
        welcome = admit_host(custody, request, "host-1", "default", now=NOW)
        return Pair(welcome.certificate_pem.encode(), tls_key_pem(key))

    def put(self, name: str, data: bytes) -> None:
        """As an installer does: a new file in place of the old one."""
        partial = self.folder / f"{name}.partial"
        partial.write_bytes(data)
        partial.replace(self.folder / name)

    def channel(self, first: Pair) -> RenewedChannel:
        self.put(CERTIFICATE, first.certificate_pem)
        self.put(KEY, first.key_pem)

        def make(pair: Pair) -> tuple[Opened, Opened]:
            self.opened.append(Opened(pair))
            return self.opened[-1], self.opened[-1]

        now = dt.datetime.fromtimestamp(NOW, dt.UTC)
        return RenewedChannel(self.folder, first, make, lambda: now, lambda line: self.said.append(str(line["event"])))  # type: ignore[arg-type]  # a channel that stands for its stubs


def used(channel: RenewedChannel) -> object:
    """What stands for the stubs of the next call."""
    return channel.stubs()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_files_that_stay_make_no_new_channel(host: Host) -> None:
    """However often stubs are asked for, one channel is open while the files are the same."""
    channel = host.channel(host.certified(0))
    assert channel.stubs() is channel.stubs()
    assert 1 == len(host.opened)


def test_a_renewed_pair_is_used_from_the_next_call_on(host: Host) -> None:
    """The half of a renewal is not used and is said; with its other half a new channel is opened, and the old one, on
    which calls may be open, is left alone.
    """
    channel, renewed = host.channel(host.certified(0)), host.certified(1)
    host.put(CERTIFICATE, renewed.certificate_pem)
    channel.stubs()
    channel.stubs()
    assert (["tls_reload_failed"], 1) == (host.said, len(host.opened))
    host.put(KEY, renewed.key_pem)
    assert used(channel) is host.opened[1]
    assert renewed == host.opened[1].pair
    assert ["tls_reload_failed", "tls_reloaded"] == host.said
    assert not host.opened[0].closed


def test_what_was_replaced_twice_is_closed(host: Host) -> None:
    """After two renewals the first channel is closed, and at the end the other two are."""
    channel = host.channel(host.certified(0))
    for count in (1, 2):
        renewed = host.certified(count)
        host.put(CERTIFICATE, renewed.certificate_pem)
        host.put(KEY, renewed.key_pem)
        channel.stubs()
    assert [True, False, False] == [opened.closed for opened in host.opened]
    channel.close()
    assert [True, True, True] == [opened.closed for opened in host.opened]


def test_a_file_that_vanished_changes_nothing(host: Host) -> None:
    """Without its certificate file the agent goes on with what it has."""
    channel = host.channel(host.certified(0))
    (host.folder / CERTIFICATE).unlink()
    assert used(channel) is host.opened[0]
    assert ["tls_reload_failed"] == host.said
