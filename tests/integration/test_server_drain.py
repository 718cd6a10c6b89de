# SPDX-License-Identifier: Apache-2.0
"""What callers see of a control plane that is stopped, or whose certificate is renewed, while they are connected."""

import hashlib
import queue
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from cloister.admin.admit import certify_server
from cloister.api.v1 import blobs_pb2, identity_pb2, jobs_pb2, workers_pb2
from cloister.enrolment import EnrolmentRequest
from cloister.tls import generate_tls_key, make_csr, tls_key_pem
from served_site import Founded, Refused, read_refusal, sqlite_url
from server_process import ServerProcess, server_process
from site_objects import create_dataset, owned, policy, publish_policy, push_dataset, push_model, sign_job
from waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with server_process(Founded(tmp_path), sqlite_url(tmp_path)) as started:
        yield started


def submitted(server: ServerProcess) -> str:
    """A queued job."""
    digest = publish_policy(server, policy(server.founded))
    training, model = push_dataset(server, "alice"), push_model(server, "alice")
    signed = sign_job(server.founded, "alice", training, model, digest)
    return server.caller("alice").jobs.CreateJob(signed.request(), timeout=30).job.id


def ended(call: Callable[[], object]) -> Refused:
    """How a call ends that fails."""
    try:
        call()
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError("the call did not fail")


def test_a_stop_lets_open_calls_end_and_refuses_new_ones(server: ServerProcess) -> None:
    """On SIGTERM a watch and a waiting lease end with SERVER_STOPPING, a new call finds nobody, and an upload that is
    under way is finished and recorded before the process ends in order.
    """
    job_id, alice, host = submitted(server), server.caller("alice"), server.fresh("host-1")
    at_once = workers_pb2.LeaseWorkRequest(wait_seconds=0)
    server.caller("host-2").workers.LeaseWork(at_once, timeout=30)  # so that host-1 waits
    made = owned(server.founded, "alice", size=200_000)
    create_dataset(alice, made)
    pieces: queue.Queue[blobs_pb2.WriteBlobRequest | None] = queue.Queue()
    first, second = made.ciphertext[:100_000], made.ciphertext[100_000:]
    pieces.put(blobs_pb2.WriteBlobRequest(object_id=made.id, offset=0, data=first))
    writing = alice.blobs.WriteBlob.future(iter(pieces.get, None), timeout=60)
    watch = server.fresh("alice").jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=60)
    next(watch)
    lease = host.workers.LeaseWork.future(workers_pb2.LeaseWorkRequest(wait_seconds=30), timeout=60)
    assert not host.workers.LeaseWork(at_once, timeout=30).job.job_id  # behind the one that waits, on one connection
    store = server.founded.directory / "store" / "partial"
    eventually(lambda: any(path.stat().st_size == len(first) for path in store.iterdir()), "the first half")

    server.process.send_signal(signal.SIGTERM)

    stopping = (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
    for call in (lambda: list(watch), lease.result):
        refused = ended(call)
        assert stopping == (refused.code, refused.reason)
    who = server.fresh("alice").identity.WhoAmI
    assert grpc.StatusCode.UNAVAILABLE is ended(lambda: who(identity_pb2.WhoAmIRequest(), timeout=30)).code
    assert server.process.poll() is None
    pieces.put(blobs_pb2.WriteBlobRequest(offset=len(first), data=second))
    pieces.put(None)
    assert writing.result(timeout=60).complete
    assert 0 == server.process.wait(60)
    assert '"stopped"' in server.said()


def shown(server: ServerProcess) -> str:
    """SHA-256 of the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()


def renew(server: ServerProcess) -> None:
    """A new key and its certificate, each in place of the old file."""
    founded, key = server.founded, generate_tls_key()
    welcome = certify_server(founded.custody, EnrolmentRequest("server", make_csr(key)), now=founded.now)
    put(founded.directory / "tls.key", tls_key_pem(key))
    put(founded.directory / "tls.crt", welcome.certificate_pem.encode())


def put(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)


def test_a_renewed_certificate_is_shown_and_open_calls_go_on(server: ServerProcess) -> None:
    """After new files the next connection is shown them, and a stream of before goes on and ends well."""
    job_id, before = submitted(server), shown(server)
    watch = server.caller("alice").jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=60)
    next(watch)
    renew(server)
    renewed = shown(server)
    assert before != renewed
    other = server.fresh("alice").jobs
    other.CancelJob(jobs_pb2.CancelJobRequest(id=job_id), timeout=30)
    assert jobs_pb2.JOB_STATE_CANCELLED == list(watch)[-1].terminal.state
    assert renewed == shown(server)
    assert 1 == server.said().count('"tls_reloaded"')


@pytest.mark.parametrize("broken", [b"-----BEGIN CERTIFICATE-----\n", None])
def test_a_broken_renewal_keeps_the_old_certificate(server: ServerProcess, broken: bytes | None) -> None:
    """A file that is no certificate, or one of another key, is said once and not used; a good pair after it is."""
    before, directory = shown(server), server.founded.directory
    other = certify_server(
        server.founded.custody, EnrolmentRequest("server", make_csr(generate_tls_key())), now=server.founded.now
    )
    put(directory / "tls.crt", broken or other.certificate_pem.encode())
    assert (before, before) == (shown(server), shown(server))
    server.fresh("alice").identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=30)
    assert 1 == server.said().count('"tls_reload_failed"')
    renew(server)
    assert before != shown(server)
