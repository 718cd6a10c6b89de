# SPDX-License-Identifier: Apache-2.0
"""Reports, figures and verdicts against a real key agent: what is signed, for whom, and what never is."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import Job, Site
from cloister.evidence.figures import MAX_ENTRIES
from cloister.evidence.manifest import Manifest, verify_object
from cloister.evidence.result import Result, verify_result
from cloister.gate import Gate
from cloister.sealed import keys
from cloister.sealed.bundle import read_bundle, write_bundle
from cloister.sealed.errors import WrongRecipientError
from cloister.sealed.payload import open_stream
from cloister_workers.agent.errors import JobFault
from cloister_workers.agent.openings import refusal
from cloister_workers.keyagent.client import JobSession
from cloister_workers.keyagent.errors import Refused
from debias_job import METHOD, figures_for, report_bundle, report_files, sha256
from keyagent_process import RunningKeyAgent, running_keyagent, seal, write_directory

FAIL, PASS = -1.0, 1.0


@pytest.fixture
def site() -> Site:
    return Site(int(time.time()))


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> Iterator[RunningKeyAgent]:
    with running_keyagent(write_directory(tmp_path / "host", site)) as running:
        yield running


@pytest.fixture
def job(site: Site) -> Job:
    return site.job(spec={"method": METHOD})


@pytest.fixture
def session(site: Site, agent: RunningKeyAgent, job: Job) -> Iterator[JobSession]:
    opened = agent.open_job(site, site.opening(job))
    yield opened
    opened.close()


def model() -> bytes:
    sink = io.BytesIO()
    write_bundle([("adapter_config.json", b"{}")], sink)
    return sink.getvalue()


def refused(session: JobSession, kind: str, content: bytes, **options: object) -> str:
    """The reason of a refusal; each of them ends a job for good."""
    with pytest.raises(Refused) as found:
        seal(session, kind, content, **options)  # type: ignore[arg-type]  # options of the helper
    assert isinstance(refusal(found.value), JobFault)
    return found.value.code


def test_a_report_is_for_the_member_and_the_recovery_key_alone(
    site: Site, agent: RunningKeyAgent, session: JobSession, tmp_path: Path
) -> None:
    """The member who signed the job, and the team's recovery key, open it; no host and no other member can."""
    made, ciphertext = seal(session, "report", report_bundle())
    verified = verify_object(made.object, site.roster, now=site.now)
    manifest = verified.manifest
    assert (manifest.kind, manifest.owner, manifest.team) == ("report", "host-1", "red")
    assert made.result is None
    wraps = {item.recipient_key_id: item.wrap for item in made.wraps}
    holders = {"alice": site.people["alice"].identity, "recovery": site.recovery}
    assert wraps.keys() == {identity.recipient.key_id for identity in holders.values()}
    for name, identity in holders.items():
        dek = keys.unwrap(wraps[identity.recipient.key_id], identity, verified.context)
        sink = io.BytesIO()
        trailer = verified.trailer
        sha, size = trailer.ciphertext_sha256, trailer.ciphertext_size
        open_stream(io.BytesIO(ciphertext), sink, dek, verified.context, expected_sha256=sha, expected_size=size)
        sink.seek(0)
        (folder := tmp_path / name).mkdir()
        read_bundle(sink, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == report_files()
    for other in (site.people["rita"], site.people["bob"], site.hosts["host-1"], site.hosts["host-2"]):
        for wrap in wraps.values():
            with pytest.raises(WrongRecipientError):
                keys.unwrap(wrap, other.identity, verified.context)


def test_the_result_binds_report_figures_and_verdict(site: Site, job: Job, session: JobSession) -> None:
    """What the host signs for a de-biased model holds the digests of its figures and of its report."""
    report, _ = seal(session, "report", report_bundle())
    figures = figures_for(job, "FAIL", "PASS").to_payload()
    made, _ = seal(session, "export", model(), figures=figures, verdict=FAIL)
    assert made.result is not None
    digest = job.statement.digest
    result = verify_result(made.result, site.roster, kind="export", authorisation_sha256=digest, now=site.now)
    assert result.figures_sha256 == sha256(figures)
    assert result.report_trailer_sha256 == report.object.trailer.digest
    assert result.metrics["debias_verdict"] == "-1.0"


def test_a_checkpoint_needs_no_evidence(session: JobSession) -> None:
    """What is stored on the way is signed without a verdict, and binds nothing."""
    made, _ = seal(session, "state", model())
    assert made.result is not None
    assert Result.parse(made.result.payload).report_trailer_sha256 == ""


def test_a_model_without_its_evidence_is_not_signed(job: Job, session: JobSession) -> None:
    """Without report, figures or verdict there is no result: the gate cannot be left out."""
    good = figures_for(job).to_payload()
    assert refused(session, "export", model(), figures=good, verdict=FAIL) == "BAD_RESULT"
    seal(session, "report", report_bundle())
    assert refused(session, "export", model(), figures=good) == "BAD_RESULT"
    assert refused(session, "export", model(), verdict=PASS) == "BAD_RESULT"
    assert refused(session, "export", model()) == "BAD_RESULT"
    seal(session, "export", model(), figures=good, verdict=FAIL)


def test_a_verdict_that_the_figures_do_not_say_is_not_signed(site: Site, job: Job, session: JobSession) -> None:
    """A better verdict than that of the figures, and figures of another job, attempt or policy, are refused."""
    seal(session, "report", report_bundle())
    assert refused(session, "export", model(), figures=figures_for(job).to_payload(), verdict=PASS) == "BAD_RESULT"
    others = [
        figures_for(site.job(spec={"method": METHOD})),
        figures_for(job, attempt=2),
        figures_for(job, policy_sha256="00" * 32),
        figures_for(job, spec_sha256="00" * 32),
    ]
    for other in others:
        assert refused(session, "export", model(), figures=other.to_payload(), verdict=FAIL) == "BAD_RESULT"


def test_figures_with_words_in_them_are_not_signed(job: Job, session: JobSession) -> None:
    """A word of a trainer's own, where a measure's kind belongs, is refused."""
    seal(session, "report", report_bundle())
    good = figures_for(job).to_payload()
    talking = good.replace(b'"kind":"measure"', b'"kind":"CANARY!"')
    assert refused(session, "export", model(), figures=talking, verdict=FAIL) == "BAD_RESULT"
    assert refused(session, "export", model(), figures=good + b" ", verdict=FAIL) == "BAD_RESULT"


def test_a_report_comes_once(session: JobSession) -> None:
    """A second report is refused: the one that a member reads is the one that the result binds."""
    seal(session, "report", report_bundle())
    assert refused(session, "report", report_bundle()) == "BAD_RESULT"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"report.html": b"x"}, "BAD_BUNDLE"),
        ({**report_files(), "rows.jsonl": b"x"}, "FILE_NOT_ALLOWED"),
        ({**report_files(), "model.safetensors": b"x"}, "FILE_NOT_ALLOWED"),
        ({"report.html": b"x", "deep/report.json": b"{}"}, "FILE_NOT_ALLOWED"),
        ({"report.html": b"x" * (9 << 20), "report.json": b"{}"}, "BUNDLE_LIMIT"),
        ({"report.html": b"x" * (5 << 20), "report.json": b"x" * (4 << 20)}, "BUNDLE_LIMIT"),
    ],
    ids=["one-file", "rows", "weights", "folder", "long", "long-together"],
)
def test_a_report_is_two_files_of_bounded_size(session: JobSession, files: dict[str, bytes], reason: str) -> None:
    """Anything but the page and its data, or more than 8 MiB of them, is refused."""
    assert refused(session, "report", report_bundle(files)) == reason


def test_a_model_is_no_report_and_a_report_no_model(job: Job, session: JobSession) -> None:
    """The files of one kind are refused under the name of the other."""
    assert refused(session, "report", model()) == "FILE_NOT_ALLOWED"
    seal(session, "report", report_bundle())
    figures = figures_for(job).to_payload()
    assert refused(session, "export", report_bundle(), figures=figures, verdict=FAIL) == "FILE_NOT_ALLOWED"


def test_another_job_brings_no_evidence_of_this_kind(site: Site, agent: RunningKeyAgent) -> None:
    """A job that does not de-bias has no report, no figures and no verdict, so that it cannot claim a passed gate."""
    plain = site.job()
    session = agent.open_job(site, site.opening(plain))
    assert refused(session, "report", report_bundle()) == "BAD_RESULT"
    assert refused(session, "export", model(), verdict=PASS) == "BAD_RESULT"
    assert refused(session, "export", model(), figures=figures_for(plain).to_payload()) == "BAD_RESULT"
    made, _ = seal(session, "export", model())
    assert Manifest.parse(made.object.manifest).kind == "export"
    session.close()


def test_too_many_figures_are_not_signed(job: Job, session: JobSession) -> None:
    """More entries than a job may report are refused, whatever the agent was made to send."""
    seal(session, "report", report_bundle())
    many = (
        figures_for(job)
        .to_payload()
        .replace(b'"verdicts":["FAIL"]', b'"verdicts":[' + b'"FAIL",' * MAX_ENTRIES + b'"FAIL"]')
    )
    assert refused(session, "export", model(), figures=many, verdict=FAIL) == "BAD_RESULT"


def test_the_gate_comes_from_the_verified_policy(site: Site, agent: RunningKeyAgent) -> None:
    """The agent gets the bars of the policy that the key agent verified; without any, none."""
    strict = Gate().tightened({"flip_rate": 0.001}, {})
    job = site.job(policy=site.policy(gate=strict), spec={"method": METHOD})
    session = agent.open_job(site, site.opening(job))
    assert session.gate == strict.to_json()
    session.close()
    session = agent.open_job(site, site.opening(site.job(), since=len(site.log.entries)))
    assert session.gate == {}
    session.close()
