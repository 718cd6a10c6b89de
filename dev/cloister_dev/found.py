# SPDX-License-Identifier: Apache-2.0
"""Founding the embedded site: the same steps, by the same code, that the people of a real site take.

(1) the custodian makes root and roster, (2) the server, the worker host and every person make their keys and ask,
(3) the custodian admits them and signs, (4) compliance signs the release policy.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from cloister.admin.admit import admit_host, admit_person, certify_server
from cloister.admin.custody import Custody
from cloister.admin.draft import add_policy_key, add_team, set_log
from cloister.admin.log_key import make_log_key, write_log_key
from cloister.admin.policy import policy_keygen, read_policy, sign_policy
from cloister.admin.root import create_root
from cloister.admin.sign import sign_next
from cloister.enrolment import EnrolmentRequest
from cloister.files import create_private, private_directory
from cloister.home import Home, install_welcome, keygen
from cloister.sealed.keys import Identity
from cloister.tls import generate_tls_key, make_csr, tls_key_pem
from cloister_dev.errors import DevError
from cloister_dev.layout import HOST, LOG_ORIGIN, PEOPLE, POOL, SITE, TEAM, Layout
from cloister_workers import init as worker

ROSTER_DAYS = 90
POLICY = """\
# Released without a person's approval once the held-out accuracy is good enough: fine for a demo, and the log says so.
id: auto-release
version: 1
auto_release: true
approvals: 0
allow_unsandboxed: false
rules:
  - {metric: eval_accuracy, at_least: "0.60"}
"""
CONFIG = """\
# Configuration of the control plane; every key is explained in docs/reference/configuration.md.
[site]
name = "{site}"
roster_file = "../root/roster.dsse"
root_public = "{root_public}"

[listen]
address = "{endpoint}"

[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "ca.crt"

[database]
url = "sqlite:///{server}/cloister.db"

[store]
directory = "blobs"
reserve_bytes = 268435456

[log]
origin = "{origin}"
key_file = "log.key"

[queue]
lease_seconds = 60
heartbeat_seconds = 5
"""


def found_site(layout: Layout) -> None:
    """Make every key and file of a new site.  Raises DevError where the directory holds something else."""
    if layout.directory.exists() and any(layout.directory.iterdir()):
        raise DevError(f"{layout.directory} is not empty and holds no site; choose another directory")
    now = int(time.time())
    private_directory(layout.directory)
    endpoint = f"127.0.0.1:{free_port()}"
    custody = create_root(layout.root, SITE, endpoint=endpoint)
    _found_team(layout, custody)
    _found_server(layout, custody, endpoint, now)
    _found_policy(layout, custody, now)
    host_request = worker.init_host(layout.worker)
    worker.install_welcome(layout.worker, admit_host(custody, host_request, HOST, POOL, now=now))
    for person, roles in PEOPLE.items():
        home = Home(layout.home(person))
        private_directory(home.directory.parent)
        install_welcome(home, admit_person(custody, keygen(home), person, TEAM, roles, now=now))
    sign_next(custody, ROSTER_DAYS, now=now)


def is_founded(layout: Layout) -> bool:
    """The roster is signed last, so where it is, everything is."""
    return (layout.root / "roster.dsse").exists()


def policy_statement(layout: Layout) -> bytes:
    """The signed policy, as stored."""
    return (layout.policy / "policy.dsse").read_bytes()


def _found_team(layout: Layout, custody: Custody) -> None:
    recovery = Identity.generate()
    create_private(layout.recovery, f"{recovery}\n".encode("ascii"))
    custody.save_draft(add_team(custody.draft(), TEAM, str(recovery.recipient)))


def _found_server(layout: Layout, custody: Custody, endpoint: str, now: int) -> None:
    private_directory(layout.server)
    signer = make_log_key(LOG_ORIGIN)
    write_log_key(layout.server / "log.key", signer)
    custody.save_draft(set_log(custody.draft(), LOG_ORIGIN, signer.vkey))
    tls = generate_tls_key()
    create_private(layout.server / "tls.key", tls_key_pem(tls))
    welcome = certify_server(custody, EnrolmentRequest("server", make_csr(tls)), now=now)
    create_private(layout.server / "tls.crt", welcome.certificate_pem.encode("ascii"))
    create_private(layout.server / "ca.crt", welcome.ca_pem.encode("ascii"))
    text = CONFIG.format(
        site=SITE,
        root_public=welcome.root_public,
        endpoint=endpoint,
        server=layout.server,
        origin=LOG_ORIGIN,
    )
    create_private(layout.server_config, text.encode("utf-8"))


def _found_policy(layout: Layout, custody: Custody, now: int) -> None:
    private_directory(layout.policy)
    key = policy_keygen(layout.policy / "policy.key")
    custody.save_draft(add_policy_key(custody.draft(), key.public, now=now))
    create_private(layout.policy / "policy.yaml", POLICY.encode("utf-8"))
    statement = sign_policy(key, read_policy(POLICY, ROSTER_DAYS, now=now))
    create_private(layout.policy / "policy.dsse", statement.to_bytes())


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def verifier_key(directory: Path) -> str:
    """The log's verifier key, out of the signed roster."""
    from cloister.evidence.roster import Roster

    return Roster.parse(Custody(directory).roster().payload).log_vkey
