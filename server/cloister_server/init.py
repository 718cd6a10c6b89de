# SPDX-License-Identifier: Apache-2.0
"""Making a control plane: its TLS key and request first, then what the root custodian answers.

DIR   tls.key, request.json; then tls.crt, ca.crt, log.key, roster.dsse and blobs/
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import UsageError
from cloister.evidence.note import NoteSigner
from cloister.files import create_private, give_to_owner, private_directory, replace_private
from cloister.tls import generate_tls_key, load_tls_key, make_csr, spki_sha256, tls_key_pem

REQUEST = "request.json"
CONFIG = """\
# /usr/share/doc/cloister/reference/configuration.md explains every key.
[site]
name = "{site}"
root_public = "{root_public}"
roster_file = "{directory}/roster.dsse"

[listen]
address = "0.0.0.0:{port}"

[tls]
certificate = "{directory}/tls.crt"
key = "{directory}/tls.key"
client_ca = "{directory}/ca.crt"

[database]
url = "{database}"

[store]
directory = "{directory}/blobs"

[log]
origin = "{origin}"
key_file = "{directory}/log.key"
"""


def init_server(directory: Path) -> EnrolmentRequest:
    """Make the TLS key and DIR/request.json.  Raises HomeError where a key exists already."""
    private_directory(directory)
    tls = generate_tls_key()
    create_private(directory / "tls.key", tls_key_pem(tls))
    request = EnrolmentRequest(kind="server", csr_pem=make_csr(tls))
    replace_private(directory / REQUEST, request.to_json().encode("utf-8"))
    give_to_owner(directory)
    return request


def install_welcome(
    directory: Path, config: Path, welcome: Welcome, *, log_key: bytes, roster: bytes, database: str
) -> bool:
    """Install what the custodian answered; returns whether the configuration was written, as there was none.

    Raises UsageError where the welcome is not for this control plane, HomeError, OSError.
    """
    if welcome.kind != "server":
        raise UsageError(f"the welcome is for a {welcome.kind}; ask the custodian for one made by 'server certify'")
    certificate = x509.load_pem_x509_certificate(welcome.certificate_pem.encode("ascii"))
    if spki_sha256(certificate) != spki_sha256(load_tls_key((directory / "tls.key").read_bytes())):
        raise UsageError(f"the certificate does not belong to {directory / 'tls.key'}; send {directory / REQUEST}")
    origin = NoteSigner.parse(log_key.decode("utf-8").strip()).name
    replace_private(directory / "tls.crt", welcome.certificate_pem.encode("ascii"))
    replace_private(directory / "ca.crt", welcome.ca_pem.encode("ascii"))
    replace_private(directory / "roster.dsse", roster)
    if not (directory / "log.key").exists():
        create_private(directory / "log.key", log_key)
    give_to_owner(directory)
    if config.exists():
        return False
    text = CONFIG.format(
        site=welcome.site,
        root_public=welcome.root_public,
        directory=directory.absolute(),
        port=welcome.endpoint.rpartition(":")[2],
        database=database,
        origin=origin,
    )
    replace_private(config, text.encode("utf-8"))
    config.chmod(0o644)  # it names keys and holds none
    return True
