# SPDX-License-Identifier: Apache-2.0
"""Wrapping a released version to a later host, against a control plane that may do anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cloister.admin.admit import admit_host
from cloister.admin.sign import sign_next
from cloister.api.v1 import grants_pb2, jobs_pb2
from cloister.enrolment import EnrolmentRequest
from cloister.evidence.manifest import Manifest
from cloister.evidence.signatures import SigningKey, b64
from cloister.grants import Granted
from cloister.sealed import keys
from cloister.sealed.keys import Identity
from cloister.tls import generate_tls_key, make_csr
from memory_site import MemorySite
from set_clock import NOW

Spec = Callable[[], dict[str, object]]


@dataclass
class Plane:
    """A site whose version was released to anna before gpu-2 was certified, and the wraps that it is handed."""

    site: MemorySite
    job: jobs_pb2.Job
    later: Identity = field(default_factory=Identity.generate)
    taken: list[grants_pb2.AddWrapsRequest] = field(default_factory=list)

    def certify_later_host(self) -> None:
        csr, public = make_csr(generate_tls_key()), b64(SigningKey.generate().public)
        request = EnrolmentRequest("host", csr, public, str(self.later.recipient))
        admit_host(self.site.custody, request, "gpu-2", "default", now=NOW)
        self.site.roster = sign_next(self.site.custody, 30, now=NOW)

    def AddWraps(self, request: grants_pb2.AddWrapsRequest) -> grants_pb2.AddWrapsResponse:
        self.taken.append(request)
        return grants_pb2.AddWrapsResponse()

    def rewrap(self, person: str = "anna") -> list[Granted]:
        client = self.site.client(person)
        client.site.refresh()
        return list(client.grants.rewrap_released())


@pytest.fixture
def plane(site: MemorySite, spec: Spec) -> Plane:
    client = site.client()
    job = client.jobs.submit(spec())
    version = site.finish_job(job.id)
    version.recipient_key_ids.append(site.host_identity.recipient.key_id)
    site.grant(client.models.release(job.id, reason="pilot").id)
    made = Plane(site, job)
    site.channel.handlers["AddWraps"] = made.AddWraps
    made.certify_later_host()
    return made


def test_the_later_host_alone_gets_a_wrap(plane: Plane) -> None:
    """The data key is wrapped to the host that the roster certifies and that has none, and opens with its key."""
    (done,) = plane.rewrap()
    assert ("version", plane.job.id, 1, "") == (done.kind, done.id, done.added, done.refusal)
    (request,) = plane.taken
    (wrap,) = request.wraps
    assert plane.later.recipient.key_id == wrap.recipient_key_id
    dek, bound_to = plane.site.deks[plane.job.id]
    assert dek == keys.unwrap(wrap.wrap, plane.later, bound_to)
    assert Manifest.parse(plane.site.versions[plane.job.id].sealed.manifest).id == request.object_id


def test_recipients_are_the_rosters(plane: Plane) -> None:
    """Whoever the control plane says holds a wrap or not, none goes to a key that is no certified host's."""
    plane.site.versions[plane.job.id].recipient_key_ids[:] = ["0" * 32]
    plane.rewrap()
    hosts = {plane.later.recipient.key_id, plane.site.host_identity.recipient.key_id}
    assert hosts == {wrap.recipient_key_id for wrap in plane.taken[0].wraps}


def test_what_was_not_released_is_told(plane: Plane) -> None:
    """To another member of the team the version stays closed, with the reason; a team that has none sees none."""
    (done,) = plane.rewrap("ben")
    assert (0, True) == (done.added, "is not released to ben" in done.refusal)
    assert [] == plane.rewrap("carl")
    assert [] == plane.taken


def test_another_object_in_its_place_is_not_wrapped(plane: Plane) -> None:
    """The result of another job under the released version's id is refused, and no wrap leaves."""
    other = plane.site.client().jobs.clone(plane.job.id)
    swapped = plane.site.finish_job(other.id, {"adapter_model.safetensors": b"backdoor"})
    plane.site.versions[plane.job.id].sealed.CopyFrom(swapped.sealed)
    found = {done.id: done for done in plane.rewrap()}
    assert "is not the one that host gpu-1 signed for" in found[plane.job.id].refusal
    assert [] == plane.taken


def test_nothing_is_left_to_do_the_second_time(plane: Plane) -> None:
    """With a wrap for every host of the pool no key is opened and nothing is sent."""
    plane.site.versions[plane.job.id].recipient_key_ids.append(plane.later.recipient.key_id)
    assert [0] == [done.added for done in plane.rewrap()]
    assert ([], []) == (plane.taken, plane.site.client().grants.lacking())
