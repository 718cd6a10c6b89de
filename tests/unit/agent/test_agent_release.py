# SPDX-License-Identifier: Apache-2.0
"""One release through the agent and a real key agent, and the main loop around it."""

import threading
from dataclasses import replace

import pytest

from cloister.api.v1 import workers_pb2
from cloister.evidence.opening import ReleaseOpening
from cloister.evidence.release import Release
from cloister.sealed import keys
from cloister.wire import statement_to_proto
from cloister_workers.agent import loop as loop_module
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.loop import Loop
from cloister_workers.agent.releasing import run_release
from fake_site import LEASE_SECONDS, FakeHost, granted, unavailable


def release_lease(host: FakeHost, accuracy: str = "0.9") -> tuple[workers_pb2.ReleaseLease, ReleaseOpening, bytes]:
    """A lease, its documents, and the version's data key."""
    job, version = host.site.job(), host.site.export()
    opening = host.site.release(job, version, host.site.result(job, version, metrics={"eval_accuracy": accuracy}))
    host.control.release = opening
    lease = workers_pb2.ReleaseLease(
        release_id=Release_id(opening),
        attempt=1,
        request=statement_to_proto(opening.request),
        policy=statement_to_proto(opening.policy),
        result=statement_to_proto(opening.result),
        authorisation=statement_to_proto(opening.authorisation),
        object=granted(host.site, version),
    )
    return lease, opening, version.dek


def Release_id(opening: ReleaseOpening) -> str:
    import json

    return str(json.loads(opening.request.payload)["release_id"])


def run(host: FakeHost, leased: workers_pb2.ReleaseLease) -> bool:
    lease = Lease(leased.release_id, leased.attempt, LEASE_SECONDS, host.host.clock, threading.Event())
    return run_release(host.host, leased, lease)


def test_a_release_is_granted_to_the_recipient(host: FakeHost) -> None:
    """The control plane gets a wrap that only the recipient opens, and the host's statement about it."""
    leased, _, dek = release_lease(host)
    run(host, leased)
    (told,) = host.control.released
    assert told.refusal == ""
    rita = host.site.people["rita"].identity
    import hashlib

    assert keys.unwrap(told.wrap.wrap, rita, hashlib.sha256(leased.object.sealed.manifest).digest()) == dek
    assert Release.parse(told.statement.payload).release_id == leased.release_id


def test_a_refused_release_says_which_check_failed(host: FakeHost) -> None:
    """The refusal names the reason and carries no wrap."""
    leased, _, _ = release_lease(host, accuracy="0.3")
    run(host, leased)
    (told,) = host.control.released
    assert told.refusal.startswith("POLICY_NOT_MET")
    assert not told.HasField("wrap")


def test_a_release_without_a_key_agent_is_left_to_expire(host: FakeHost) -> None:
    """A fault of this host refuses nothing: another attempt may do better."""
    leased, _, _ = release_lease(host)
    host.paths.socket.unlink()
    run(host, leased)
    assert host.control.released == []


def loop_of(host: FakeHost, stop: threading.Event) -> Loop:
    return Loop(host.host, gpus=0, poll_seconds=1, stop=stop, jitter=lambda: 0.0)


def test_the_loop_does_what_it_is_given(host: FakeHost) -> None:
    """A leased release is carried out, and `once` ends the loop after it."""
    leased, _, _ = release_lease(host)
    host.control.work.put(workers_pb2.LeaseWorkResponse(release=leased, lease_seconds=LEASE_SECONDS))
    loop_of(host, threading.Event()).run(once=True)
    assert len(host.control.released) == 1


def test_the_loop_drains(host: FakeHost) -> None:
    """After a DRAIN the work is finished and nothing more is taken."""
    leased, _, _ = release_lease(host)
    host.control.directive = workers_pb2.DIRECTIVE_DRAIN
    for _ in range(2):
        host.control.work.put(workers_pb2.LeaseWorkResponse(release=leased, lease_seconds=LEASE_SECONDS))
    lease_seen = threading.Event()
    original = host.control.RequestOpening

    def opening(request: workers_pb2.RequestOpeningRequest, timeout: float) -> workers_pb2.RequestOpeningResponse:
        while "Heartbeat" not in host.control.calls:
            lease_seen.wait(0.001)
        return original(request, timeout)

    host.control.RequestOpening = opening  # type: ignore[method-assign]
    loop_of(host, threading.Event()).run()
    assert host.control.calls.count("LeaseWork") == 1


def test_the_loop_survives_a_control_plane_that_is_away(host: FakeHost) -> None:
    """No answer is logged and asked again; a stop ends the wait at once."""
    stop = threading.Event()

    class Answers(list[Exception]):
        def pop(self, index: int = -1) -> Exception:  # type: ignore[override]
            stop.set()
            return super().pop(0)

    host.control.fail["LeaseWork"] = Answers([unavailable()])
    loop_of(host, stop).run()
    assert [line["event"] for line in host.log] == ["no_control_plane"]


class Waits(threading.Event):
    """Notes how long somebody waited, and is set at the end of a list of moments."""

    def __init__(self, moments: int) -> None:
        super().__init__()
        self.left = moments
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        self.left -= 1
        if self.left == 0:
            self.set()
        return self.is_set()


def test_without_a_key_agent_no_work_is_asked_for(host: FakeHost) -> None:
    """Its attempts would fail one after the other; the loop looks again, less and less often."""
    host.paths.socket.unlink()
    stop = Waits(3)
    loop_of(host, stop).run()
    assert "LeaseWork" not in host.control.calls
    assert ["no_key_agent"] * 3 == [line["event"] for line in host.log]
    assert [0.5, 1.0, 2.0] == stop.seconds


def test_after_a_fault_of_this_host_another_may_come_first(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt in a row that the host could not do its part of makes it wait longer; one that it could does not."""
    did = [False, False, True, False]
    monkeypatch.setattr(loop_module, "run_release", lambda *_: did.pop(0))
    leased, _, _ = release_lease(host)
    for _ in did:
        host.control.work.put(workers_pb2.LeaseWorkResponse(release=leased, lease_seconds=LEASE_SECONDS))
    stop = Waits(3)
    loop_of(host, stop).run()
    assert ([], [0.5, 1.0, 0.5]) == (did, stop.seconds)


@pytest.mark.parametrize("gone", [True, False])
def test_what_this_host_could_not_do_is_told(host: FakeHost, gone: bool) -> None:
    """A release whose key agent is gone is a fault of this host, one that policy refuses is not."""
    leased, _, _ = release_lease(host, accuracy="0.3")
    if gone:
        host.paths.socket.unlink()
    assert run(host, leased) is not gone


def test_leftovers_of_a_crash_are_removed(host: FakeHost) -> None:
    """What a killed agent left in spool and cache is gone at the next start; whole models stay."""
    (host.paths.spool / "job.1").mkdir()
    (host.paths.spool / "job.1" / "x.in").write_bytes(b"x")
    (host.paths.cache / ".partial-1").mkdir()
    (host.paths.cache / ("a" * 64)).mkdir()
    assert host.host.spool.clear() == 1
    host.host.cache.clear_partial()
    assert list(host.paths.spool.iterdir()) == []
    assert [path.name for path in host.paths.cache.iterdir()] == ["a" * 64]


def test_documents_of_a_release_pass_unchanged(host: FakeHost) -> None:
    """What the key agent checks is byte for byte what the control plane handed over."""
    from cloister_workers.agent.openings import release_opening
    from fake_site import opening_response

    leased, opening, _ = release_lease(host)
    logged = opening_response(opening.evidence, host.site.sign_roster())
    assert release_opening(leased, logged) == replace(opening, attempt=1)
