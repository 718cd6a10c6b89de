# SPDX-License-Identifier: Apache-2.0
"""The connection: mutual TLS, a deadline on every unary call, retries, and errors as exceptions.

`Connection` takes any `grpc.Channel`, so a test hands it a fake one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # ships no stubs
from grpc_status import rpc_status  # type: ignore[import-untyped]

from cloister.api.v1 import (
    audit_pb2_grpc,
    blobs_pb2_grpc,
    datasets_pb2_grpc,
    enrolment_pb2_grpc,
    grants_pb2_grpc,
    identity_pb2_grpc,
    jobs_pb2_grpc,
    models_pb2_grpc,
    operations_pb2_grpc,
)
from cloister.errors import CloisterError, ConnectError, HomeError, PermissionDeniedError, ServerError
from cloister.reasons import DOMAIN, error_for, one_line

if TYPE_CHECKING:
    from cloister.enrolment_token import EnrolmentToken
    from cloister.home import Home

Q = TypeVar("Q")
R = TypeVar("R")

DEADLINE_SECONDS = 30.0
ATTEMPTS = 5
MAX_BACKOFF_SECONDS = 8.0
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)


class Connection:
    """Stubs of every service on one channel, and how they are called."""

    def __init__(self, channel: grpc.Channel, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._channel = channel
        self._sleep = sleep
        self.identity = identity_pb2_grpc.IdentityServiceStub(channel)
        self.enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
        self.datasets = datasets_pb2_grpc.DatasetServiceStub(channel)
        self.grants = grants_pb2_grpc.GrantServiceStub(channel)
        self.models = models_pb2_grpc.ModelServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.blobs = blobs_pb2_grpc.BlobServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsServiceStub(channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(channel)

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Q, R],
        request: Q,
        *,
        timeout: float = DEADLINE_SECONDS,
        idempotent: bool = True,
    ) -> R:
        """One unary call.

        Every unary RPC of the contract is safe to repeat; a caller for whom it is not says so.
        Raises the exception of the answer's reason, ConnectError where there was no answer.
        """
        attempt = 0
        while True:
            try:
                return method(request, timeout=timeout)
            except grpc.RpcError as error:
                attempt += 1
                failure = translate(error)
                if not (idempotent and isinstance(failure, ConnectError) and attempt < ATTEMPTS):
                    raise failure from None
                self.back_off(attempt)

    def back_off(self, attempt: int) -> None:
        """Wait before attempt number `attempt` + 1: twice as long each time, with jitter."""
        longest = min(MAX_BACKOFF_SECONDS, 0.2 * 2.0**attempt)
        self._sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    def close(self) -> None:
        self._channel.close()


def messages(stream: Iterator[R]) -> Iterator[R]:
    """The messages of a server stream, with its failure as one of our exceptions."""
    try:
        yield from stream
    except grpc.RpcError as error:
        raise translate(error) from None


def translate(error: grpc.RpcError) -> CloisterError:
    """The exception for a failed call."""
    if not isinstance(error, grpc.Call):
        return ServerError(f"the call failed: {type(error).__name__}; try again")
    status = rpc_status.from_call(error)
    for detail in () if status is None else status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return error_for(info.reason, dict(info.metadata), error.details() or "")
    return _without_reason(error)


def _without_reason(error: grpc.Call) -> CloisterError:
    """A failure that the transport made, not the control plane."""
    code, text = error.code(), one_line(error.details() or "")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ConnectError("the control plane did not answer in time; try again")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ConnectError(f"the control plane cannot be reached ({text}); check the endpoint, the network, the clock")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return PermissionDeniedError(f"the control plane does not know this certificate ({text}); enrol again")
    return ServerError(f"the control plane answered {code.name} ({text}); tell its administrator")


def connect_with_token(token: EnrolmentToken, server_pem: str, endpoint: str) -> grpc.Channel:
    """A mutual-TLS channel for a claim: the token's own key, and the very server certificate that it pins."""
    from cloister.tls import tls_key_pem

    credentials = grpc.ssl_channel_credentials(
        root_certificates=server_pem.encode("ascii"),
        private_key=tls_key_pem(token.tls_key),
        certificate_chain=token.certificate_pem().encode("ascii"),
    )
    return grpc.secure_channel(endpoint, credentials, options=_OPTIONS)


def connect(home: Home, endpoint: str, now: int) -> grpc.Channel:
    """A mutual-TLS channel with the keys and pins of a home.  Raises HomeError."""
    certificate, key = home.read("tls.crt"), home.read("tls.key")
    _check_certificate(certificate, key, now)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=home.pins().ca_pem.encode("ascii"),
        private_key=key,
        certificate_chain=certificate,
    )
    return grpc.secure_channel(endpoint, credentials, options=_OPTIONS)


def _check_certificate(pem: bytes, key_pem: bytes, now: int) -> None:
    """Say what TLS would only refuse: the handshake's own words do not name the cause."""
    from cryptography import x509

    from cloister.tls import load_tls_key, spki_sha256

    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise HomeError("tls.crt is damaged; run: cloister enroll WELCOME.json") from None
    if spki_sha256(certificate) != spki_sha256(load_tls_key(key_pem)):
        raise HomeError(
            "tls.key does not belong to the certificate in tls.crt; enrol with the welcome file of this key"
        )
    when = datetime.fromtimestamp(now, UTC)
    if when >= certificate.not_valid_after_utc:
        raise HomeError(
            f"your certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}; "
            "send request.json to the root custodian (cloister-admin person certify), then enrol with the welcome file"
        )
    if when < certificate.not_valid_before_utc:
        raise HomeError("your certificate is not valid yet; check this machine's clock")
