# SPDX-License-Identifier: Apache-2.0
"""The main path of the library against an honest site in memory."""

from __future__ import annotations

import json

from cloister.api.v1 import jobs_pb2
from cloister.evidence.authorisation import verify_authorisation
from cloister.evidence.roster import verify_roster
from cloister.wire import statement_from_proto
from memory_site import ADAPTER
from set_clock import NOW


def test_main_path(site, spec, tmp_path):
    """A pushed dataset and model become a signed job, a release and a folder with the result's files."""
    wanted = spec()
    client = site.client()
    job = client.jobs.submit(wanted)
    roster = verify_roster(site.roster, site.homes["anna"].pins().root_public, seen_version=0, now=NOW)
    signed = verify_authorisation(statement_from_proto(job.authorisation), job.spec, roster, now=NOW)
    assert {"anna", "alpha"} == {signed.member, signed.team}
    site.finish_job(job.id)
    release = client.models.release("helpdesk", reason="pilot")
    site.grant(release.id)
    folder = client.models.pull("helpdesk", tmp_path / "out")
    assert ADAPTER == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [] == list(site.homes["anna"].cache.iterdir())
    assert [] == list(site.homes["anna"].spool.iterdir())


def test_signed_spec_spells_out_defaults(site, spec):
    """What is signed holds ids and every default, in canonical order."""
    job = site.client().jobs.submit(spec())
    values = json.loads(job.spec)
    assert ["adapter", "data", "max_attempts"] == sorted(values)[:3]
    assert 4 == values["method"]["classification"]["hyperparameters"]["n_epochs"]
    assert next(iter(site.datasets)) == values["training_dataset"]
    assert "42" == values["seed"]


def test_every_unary_call_has_a_deadline(site, spec, tmp_path):
    """No unary call is made without a deadline."""
    client = site.client()
    job = client.jobs.submit(spec())
    client.jobs.get(job.id)
    client.jobs.cancel(job.id)
    client.whoami()
    assert [] == site.channel.without_deadline


def test_submit_is_one_job(site, spec):
    """A submission whose answer is lost is repeated with the same id."""
    import grpc

    from fake_channel import Refusal

    wanted = spec()
    honest, lost = site.CreateJob, iter([True])

    def loses_answer(request):
        answer = honest(request)
        if next(lost, False):
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return answer

    site.channel.handlers["CreateJob"] = loses_answer
    site.client().jobs.submit(wanted)
    assert 1 == len(site.jobs)


def test_clone_keeps_the_signed_spec(site, spec):
    """A clone has a new id and the signed settings, apart from what is changed."""
    client = site.client()
    first = client.jobs.submit({**spec(), "seed": 5})
    second = client.jobs.clone(first.id, {"seed": "7"})
    old, new = json.loads(first.spec), json.loads(second.spec)
    assert ("5", "7") == (old.pop("seed"), new.pop("seed"))
    assert old.pop("suffix") != new.pop("suffix")
    assert old == new
    assert first.id != second.id


def test_watch_reconnects(site, spec):
    """A broken stream is taken up after the last event; each event comes once, the end is the terminal message."""
    import grpc

    from fake_channel import Refusal

    client = site.client()
    job = client.jobs.submit(spec())
    breaks = iter([2, 3])

    def breaking(request):
        limit = next(breaks, 99)
        for count, message in enumerate(site.WatchJob(request)):
            if count == limit:
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")
            yield message

    site.channel.handlers["WatchJob"] = breaking
    seen = list(client.jobs.watch(job.id))
    assert [1, 2, 3, 4, 5] == [m.event.seq for m in seen if m.WhichOneof("kind") == "event"]
    assert job.id == seen[-1].terminal.id
    assert jobs_pb2.JOB_STATE_QUEUED == seen[-1].terminal.state
