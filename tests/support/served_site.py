# SPDX-License-Identifier: Apache-2.0
"""A control plane served over real mTLS inside the test's process, and the people and hosts who call it.

Ciphertext and wraps are random bytes: the control plane must not be able to tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from cloister.admin.admit import admit_host, admit_person, certify_server
from cloister.admin.certificates import identity_uri, issue_certificate
from cloister.admin.custody import Custody
from cloister.admin.draft import add_policy_key, add_team, set_log
from cloister.admin.log_key import make_log_key, write_log_key
from cloister.admin.root import create_root
from cloister.admin.sign import sign_next
from cloister.api.v1 import (
    audit_pb2_grpc,
    blobs_pb2_grpc,
    datasets_pb2_grpc,
    enrolment_pb2_grpc,
    identity_pb2_grpc,
    jobs_pb2_grpc,
    models_pb2_grpc,
    workers_pb2_grpc,
)
from cloister.enrolment import EnrolmentRequest
from cloister.evidence.entry import Entry
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import SigningKey, Statement, b64
from cloister.sealed.keys import Identity
from cloister.tls import TlsKey, generate_tls_key, make_csr, tls_key_pem
from cloister_audit import query
from cloister_server.config import Config
from cloister_server.database.engine import Database, open_database
from cloister_server.journal import Journal
from cloister_server.migrations.schema import upgrade
from cloister_server.server import build_site, running, wall_clock
from cloister_server.site import Site

SITE = "test"
ORIGIN = "test.example/log"
POOL = "default"
DEADLINE = 30.0
MEMBERS = {
    "alice": ("blue", ("member",)),
    "erin": ("blue", ("member",)),
    "bob": ("blue", ("approver",)),
    "carol": ("office", ("auditor",)),
    "dana": ("office", ("admin",)),
    "gina": ("green", ("member",)),
    "gabe": ("green", ("approver",)),
}
HOSTS = ("host-1", "host-2")


@dataclass(frozen=True)
class Keys:
    """Everything secret of one person or host."""

    signing: SigningKey = field(default_factory=SigningKey.generate)
    identity: Identity = field(default_factory=Identity.generate)
    tls: TlsKey = field(default_factory=generate_tls_key)

    def request(self, kind: str) -> EnrolmentRequest:
        public = b64(self.signing.public)
        return EnrolmentRequest(kind, make_csr(self.tls), public, str(self.identity.recipient))

    @property
    def key_id(self) -> str:
        return self.identity.recipient.key_id


class Caller:
    """One identity's channel and stubs."""

    def __init__(self, name: str, keys: Keys, channel: grpc.Channel) -> None:
        self.name = name
        self.keys = keys
        self.channel = channel
        self.identity = identity_pb2_grpc.IdentityServiceStub(channel)
        self.enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
        self.blobs = blobs_pb2_grpc.BlobServiceStub(channel)
        self.datasets = datasets_pb2_grpc.DatasetServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.models = models_pb2_grpc.ModelServiceStub(channel)
        self.workers = workers_pb2_grpc.WorkerServiceStub(channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(channel)


@dataclass(frozen=True)
class Refused:
    """How a call was refused."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]


def refusal(call: Callable[[], object]) -> Refused:
    """Make a call that must fail; streams are read to their end."""
    try:
        answer = call()
        if isinstance(answer, Iterator):
            list(answer)
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError("the call was not refused")


def read_refusal(error: grpc.RpcError) -> Refused:
    assert isinstance(error, grpc.Call)
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    if status is not None:
        for detail in status.details:
            detail.Unpack(info)
    return Refused(error.code(), info.reason, error.details() or "", dict(info.metadata))


class Founded:
    """The keys and files of a site, before anything is served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = int(time.time())
        self.custody: Custody = create_root(directory / "root", SITE)
        self.people = {name: Keys() for name in MEMBERS}
        self.hosts = {name: Keys() for name in HOSTS}
        self.recovery = {team: Identity.generate() for team in ("blue", "green", "office")}
        self.policy_key = SigningKey.generate()
        self.certificates: dict[str, str] = {}
        self._found()

    def _found(self) -> None:
        custody, now = self.custody, self.now
        for team, identity in self.recovery.items():
            custody.save_draft(add_team(custody.draft(), team, str(identity.recipient)))
        signer = make_log_key(ORIGIN)
        write_log_key(self.directory / "log.key", signer)
        custody.save_draft(set_log(custody.draft(), ORIGIN, signer.vkey))
        custody.save_draft(add_policy_key(custody.draft(), self.policy_key.public, now=now))
        for name, (team, roles) in MEMBERS.items():
            welcome = admit_person(custody, self.people[name].request("person"), name, team, roles, now=now)
            self.certificates[name] = welcome.certificate_pem
        for name, keys in self.hosts.items():
            welcome = admit_host(custody, keys.request("host"), name, POOL, now=now)
            self.certificates[name] = welcome.certificate_pem
        server = generate_tls_key()
        (self.directory / "tls.key").write_bytes(tls_key_pem(server))
        welcome = certify_server(custody, EnrolmentRequest("server", make_csr(server)), now=now)
        (self.directory / "tls.crt").write_text(welcome.certificate_pem)
        (self.directory / "ca.crt").write_text(welcome.ca_pem)
        self.ca_pem = welcome.ca_pem
        self.sign_roster()

    def sign_roster(self, change: Callable[[Roster], Roster] = lambda roster: roster) -> Statement:
        """Sign the next version of the roster."""
        self.custody.save_draft(change(self.custody.draft()))
        return sign_next(self.custody, 30, now=self.now)

    @property
    def roster(self) -> Roster:
        return Roster.parse(self.custody.roster().payload)

    def certificate(self, uri: str, keys: Keys, *, kind: str = "person") -> str:
        """A certificate of the site's CA for any name: what a CA that was taken over could make."""
        return issue_certificate(self.custody.authority(), keys.request(kind).csr_pem, (uri,), 30, now=self.now)

    def uri(self, kind: str, name: str) -> str:
        return identity_uri(SITE, kind, name)

    def config(self, database_url: str, **changes: object) -> Config:
        config = Config(
            site=SITE,
            root_public=self.custody.root_key().public,
            roster_file=self.directory / "root" / "roster.dsse",
            address="127.0.0.1:0",
            port_file=self.directory / "port",
            tls_certificate=self.directory / "tls.crt",
            tls_key=self.directory / "tls.key",
            client_ca=self.directory / "ca.crt",
            issuing_key=None,
            issuing_certificate=None,
            certificate_days=30,
            database_url=database_url,
            store_directory=self.directory / "store",
            reserve_bytes=1 << 20,
            log_origin=ORIGIN,
            log_key_file=self.directory / "log.key",
            lease_seconds=60,
            heartbeat_seconds=1,
            sweep_seconds=3600.0,
        )
        return replace(config, **changes)  # type: ignore[arg-type]  # fields of Config, by name


class Served(Protocol):
    """A site that answers, in this process or in another."""

    founded: Founded

    def caller(self, name: str) -> Caller: ...


class ServedSite:
    """A founded site that is served, and its callers."""

    def __init__(self, founded: Founded, site: Site, database: Database, port: int) -> None:
        self.founded = founded
        self.site = site
        self.database = database
        self.port = port
        self._callers: dict[str, Caller] = {}

    def caller(self, name: str) -> Caller:
        """A person or host of the roster."""
        if name not in self._callers:
            keys = {**self.founded.people, **self.founded.hosts}[name]
            self._callers[name] = self.with_certificate(name, keys, self.founded.certificates[name])
        return self._callers[name]

    def with_certificate(self, name: str, keys: Keys, certificate: str) -> Caller:
        """Somebody with any certificate."""
        credentials = grpc.ssl_channel_credentials(
            self.founded.ca_pem.encode(), tls_key_pem(keys.tls), certificate.encode()
        )
        caller = Caller(name, keys, grpc.secure_channel(f"localhost:{self.port}", credentials))
        self._callers.setdefault(f"{name}/{id(caller)}", caller)
        return caller

    def close(self) -> None:
        for caller in self._callers.values():
            caller.channel.close()

    def entries(self, **wanted: str) -> list[Entry]:
        """Entries of the log by action, actor or object_id, oldest first."""
        with self.database.reader.connect() as connection:
            found = query.entries(connection, query.Filter(**wanted), -1, 100_000)  # type: ignore[arg-type]
        return [Entry.parse(body) for _, body in found]


@contextmanager
def served(
    founded: Founded,
    database_url: str,
    journal: Journal,
    *,
    migrate: bool = True,
    clock: Callable[[], int] = wall_clock,
    **changes: object,
) -> Iterator[ServedSite]:
    """Serve a founded site on a loop of its own until the context ends; the database's schema is made first."""
    database = open_database(database_url)
    if migrate:
        upgrade(database)
    site = build_site(founded.config(database_url, **changes), database, journal, clock)
    ready: list[int] = []
    failed: list[BaseException] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with running(site) as port:
            ready.append(port)
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:  # noqa: BLE001  # handed to the test
            failed.append(error)
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    if failed:
        raise failed[0]
    live = ServedSite(founded, site, database, ready[0])
    try:
        yield live
    finally:
        live.close()
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        database.dispose()
    if failed:
        raise failed[0]


def sqlite_url(directory: Path) -> str:
    return f"sqlite:///{directory / 'site.db'}"


def random_wraps(key_ids: list[str]) -> dict[str, bytes]:
    return {key_id: os.urandom(1168) for key_id in key_ids}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
