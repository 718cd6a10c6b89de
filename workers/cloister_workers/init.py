# SPDX-License-Identifier: Apache-2.0
"""Making a worker host: keys and request first, then what the root custodian answers."""

from __future__ import annotations

import json
from pathlib import Path

from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import UsageError
from cloister.evidence.signatures import SigningKey, b64
from cloister.files import create_private, give_to_owner, private_directory, replace_private
from cloister.sealed.keys import Identity
from cloister.tls import generate_tls_key, load_tls_key, make_csr, spki_sha256, tls_key_pem
from cloister_workers.config import HostPaths
from cloister_workers.keyagent.memory import STATE, Remembered, write_state
from cloister_workers.keyagent.vault import ROOT_PUBLIC, SEALING_KEY, SIGNING_KEY, SITE

REQUEST = "request.json"


def init_host(root: Path) -> EnrolmentRequest:
    """Make both directories with new keys, and DIR/request.json.  Raises HomeError where keys exist already."""
    paths = HostPaths(private_directory(root))
    for folder in (paths.keyagent, paths.agent, paths.cache, paths.spool):
        private_directory(folder)
    signing, sealing, tls = SigningKey.generate(), Identity.generate(), generate_tls_key()
    create_private(paths.keyagent / SIGNING_KEY, signing.export().encode("ascii"))
    create_private(paths.keyagent / SEALING_KEY, str(sealing).encode("ascii"))
    create_private(paths.agent / "tls.key", tls_key_pem(tls))
    request = EnrolmentRequest(
        kind="host", csr_pem=make_csr(tls), signing_public=b64(signing.public), recipient=str(sealing.recipient)
    )
    replace_private(root / REQUEST, request.to_json().encode("utf-8"))
    _hand_over(paths)
    return request


def install_welcome(root: Path, welcome: Welcome) -> None:
    """Install what the custodian answered.  Again with a new certificate, it keeps root, host and memory.

    Raises UsageError where the welcome is another's, and HomeError, OSError.
    """
    paths = HostPaths(root)
    if welcome.kind != "host":
        raise UsageError(f"the welcome is for a {welcome.kind}; ask the custodian for one made by 'host add'")
    _check_certificate(paths, welcome)
    pinned = paths.keyagent / ROOT_PUBLIC
    if pinned.exists() and pinned.read_text(encoding="ascii").strip() != welcome.root_public:
        # A host that took any root that comes along could be moved to the control plane's own.
        raise UsageError("the welcome names another root than the one that this host pins; make a new host for it")
    site = json.dumps({"site": welcome.site, "id": welcome.id}).encode("utf-8")
    if not (paths.keyagent / STATE).exists():
        # Before root.pub, which marks the key agent's directory as complete.
        write_state(paths.keyagent / STATE, Remembered())
    replace_private(paths.keyagent / SITE, site)
    replace_private(pinned, welcome.root_public.encode("ascii"))
    values = {
        "site": welcome.site,
        "id": welcome.id,
        "kind": welcome.kind,
        "endpoint": welcome.endpoint,
        "root_public": welcome.root_public,
        "ca_pem": welcome.ca_pem,
    }
    replace_private(paths.agent / "tls.crt", welcome.certificate_pem.encode("ascii"))
    replace_private(paths.agent / "site.json", json.dumps(values, indent=2).encode("utf-8"))
    _hand_over(paths)


def _hand_over(paths: HostPaths) -> None:
    """An administrator runs this as root; the key agent and the agent are users of their own."""
    for folder in (paths.keyagent, paths.agent):
        give_to_owner(folder)


def _check_certificate(paths: HostPaths, welcome: Welcome) -> None:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(welcome.certificate_pem.encode("ascii"))
    key = load_tls_key((paths.agent / "tls.key").read_bytes())
    if spki_sha256(certificate) != spki_sha256(key):
        raise UsageError("the certificate does not belong to this host's TLS key; send this host's request.json")
