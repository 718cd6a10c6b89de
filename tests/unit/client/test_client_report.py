# SPDX-License-Identifier: Apache-2.0
"""The report and the figures of a de-biasing job: opened by those whom they are for, believed as far as proven."""

from __future__ import annotations

import json
from dataclasses import replace

import grpc
import pytest

from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.errors import NotFoundError, RefusedError, UsageError
from cloister.evidence.errors import BindingError, EvidenceError, PolicyError, SignatureError, TamperedError
from cloister.evidence.release import Approval, ReleaseRequest
from cloister.evidence.signatures import SigningKey
from cloister.reports import PAGE_START
from cloister.sealed.errors import FileNotAllowedError, SealedError
from cloister.wire import statement_to_proto
from debias_job import FIGURE, HEADLINE, PAGE, figures_of, report_files, sha256, verdict_metrics
from fake_channel import Refusal
from memory_report import finish_with_report, for_auditors, submitted


@pytest.fixture
def job_id(site, spec):
    return submitted(site, spec())


@pytest.fixture
def cloister(site, monkeypatch, capsys, tmp_path):
    """Run a command as a person: (exit code, stdout, stderr)."""

    def opened(home=None):
        client = site.client(home.name)
        client.site.refresh()
        return client

    monkeypatch.setattr(Client, "open", opened)
    monkeypatch.chdir(tmp_path)

    def command(*arguments, person="anna"):
        code = run("cloister", cli, [*map(str, arguments), "--home", str(site.homes[person].directory)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def nothing_left(tmp_path):
    return not (tmp_path / "out").exists() and not [p for p in tmp_path.iterdir() if "partial" in p.name]


# ---------------------------------------------------------------- honest
def test_the_member_opens_the_report(site, job_id, tmp_path):
    """The member who signed the job gets both files, byte for byte, and the verdict that the host signed."""
    finish_with_report(site, job_id)
    client = site.client()
    report = client.jobs.report(job_id)
    assert report.figures.verdict == "FAIL"
    folder = client.jobs.open_report(report, tmp_path / "out")
    assert report_files() == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert list(site.homes["anna"].cache.iterdir()) == []


def test_the_recovery_key_opens_the_report(site, job_id, tmp_path):
    """The team does not lose a report with the member who asked for it."""
    finish_with_report(site, job_id)
    client = site.client("ben")
    folder = client.jobs.open_report(client.jobs.report(job_id), tmp_path / "out", site.recovery)
    assert (folder / "report.html").read_bytes() == PAGE


def test_a_colleague_is_told_whom_to_ask(site, job_id, tmp_path):
    """Another member of the team reads the figures, and is told who can open the report."""
    finish_with_report(site, job_id)
    client = site.client("ben")
    report = client.jobs.report(job_id)
    with pytest.raises(RefusedError, match="sealed to anna"):
        client.jobs.open_report(report, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_an_auditor_verifies_the_figures(site, job_id, tmp_path):
    """Without the sealed report the figures verify all the same, and there is nothing to open."""
    for_auditors(finish_with_report(site, job_id))
    client = site.client("dora")
    report = client.jobs.report(job_id)
    assert (report.figures.verdict, report.sealed) == ("FAIL", None)
    with pytest.raises(RefusedError, match="--numeric"):
        client.jobs.open_report(report, tmp_path / "out")


def test_a_job_without_a_report(site, job_id):
    """What the control plane does not have is not found."""

    def absent(_):
        raise Refusal(grpc.StatusCode.NOT_FOUND, "no such report", "NOT_FOUND")

    site.channel.handlers["GetJobReport"] = absent
    with pytest.raises(NotFoundError):
        site.client().jobs.report(job_id)


def test_a_folder_is_not_overwritten(site, job_id, tmp_path):
    """A report goes into a new folder."""
    finish_with_report(site, job_id)
    client = site.client()
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        client.jobs.open_report(client.jobs.report(job_id), tmp_path / "out")
    assert "ReadBlob" not in site.channel.calls


# ---------------------------------------------------------------- hostile
def test_forged_figures(site, job_id):
    """Figures that say PASS in place of those that the host signed are refused."""
    report = finish_with_report(site, job_id)
    report.answer.figures = report.answer.figures.replace(b'"verdicts":["FAIL"]', b'"verdicts":["PASS"]')
    with pytest.raises(BindingError, match="figures"):
        site.client().jobs.report(job_id)


def test_figures_of_another_job(site, job_id):
    """Figures that a host signed, but of another job, policy or attempt, or with another verdict, are refused."""
    report = finish_with_report(site, job_id)
    signed = report.authorisation
    for figures in (
        figures_of("j-1", signed.spec_sha256, signed.policy_sha256),
        figures_of(job_id, "00" * 32, signed.policy_sha256),
        figures_of(job_id, signed.spec_sha256, "00" * 32),
        figures_of(job_id, signed.spec_sha256, signed.policy_sha256, attempt=2),
        figures_of(job_id, signed.spec_sha256, signed.policy_sha256, "PASS"),
    ):
        report.answer.figures = figures.to_payload()
        report.sign(site, figures_sha256=sha256(figures.to_payload()))
        with pytest.raises(BindingError, match="of another job, or say something else"):
            site.client().jobs.report(job_id)


def test_a_result_by_nobody(site, job_id):
    """A result that no certified host signed proves no figures."""
    report = finish_with_report(site, job_id)
    statement = report.result.sign(SigningKey.generate())
    report.answer.result.CopyFrom(statement_to_proto(statement))
    with pytest.raises(SignatureError):
        site.client().jobs.report(job_id)


def test_a_result_of_another_job(site, job_id, spec):
    """The result of another job of the same member is refused."""
    other = site.client().jobs.clone(site.client().jobs.submit({**spec(), "suffix": "other"}).id)
    report = finish_with_report(site, job_id)
    site.jobs[other.id].spec = site.jobs[job_id].spec
    with pytest.raises(BindingError):
        site.client().jobs.report(other.id)
    report.sign(site, job_id=other.id)
    with pytest.raises(BindingError):
        site.client().jobs.report(job_id)


def test_another_job_in_its_place(site, job_id, spec):
    """A control plane that answers with another job, or another specification, is refused."""
    finish_with_report(site, job_id)
    other = submitted(site, {**spec(), "suffix": "other"})
    stored = site.jobs[job_id]
    site.jobs[job_id] = site.jobs[other]
    with pytest.raises(BindingError):
        site.client().jobs.report(job_id)
    stored.spec = stored.spec.replace(b'"flip_rate"', b'"flop_rate"')
    site.jobs[job_id] = stored
    with pytest.raises(BindingError):
        site.client().jobs.report(job_id)


@pytest.mark.parametrize(
    "changes",
    [{"kind": "export"}, {"team": "beta"}, {"details": {"job_id": "j-1", "attempt": "1", "step": "0"}}],
    ids=["kind", "team", "job"],
)
def test_another_object_in_its_place(site, job_id, changes):
    """An object of the same host that is no report of this job is refused, though a result names it."""
    finish_with_report(site, job_id, **changes)
    with pytest.raises(BindingError, match="not a report of this job"):
        site.client().jobs.report(job_id)


def test_a_report_that_no_result_binds(site, job_id):
    """A report that the host made for an earlier attempt is refused in the place of the bound one."""
    report = finish_with_report(site, job_id)
    report.sign(site, report_trailer_sha256="00" * 32)
    with pytest.raises(BindingError, match="not the one that host"):
        site.client().jobs.report(job_id)


def test_a_damaged_report(site, job_id, tmp_path):
    """Changed ciphertext opens nothing, and is not kept for the next run."""
    report = finish_with_report(site, job_id)
    site.blobs[report.answer.object_id][100] ^= 1
    client = site.client()
    with pytest.raises(SealedError):
        client.jobs.open_report(client.jobs.report(job_id), tmp_path / "out")
    assert nothing_left(tmp_path)
    assert list(site.homes["anna"].cache.iterdir()) == []


def test_a_wrap_of_something_else(site, job_id, tmp_path):
    """A wrap that was made for another object does not open this one."""
    report = finish_with_report(site, job_id)
    wraps = report.answer.wraps
    wraps[0].wrap, wraps[1].wrap = wraps[1].wrap, wraps[0].wrap
    client = site.client()
    with pytest.raises(SealedError):
        client.jobs.open_report(client.jobs.report(job_id), tmp_path / "out")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({**report_files(), "rows.jsonl": b"x"}, FileNotAllowedError),
        ({"report.html": PAGE}, TamperedError),
        ({**report_files(), "report.html": b"<html><img src=https://example.org/?q=women></html>"}, TamperedError),
        ({**report_files(), "report.html": PAGE_START + b"<SCRIPT>alert(1)</SCRIPT>"}, TamperedError),
        (
            {**report_files(), "report.html": PAGE_START + b'<meta http-equiv="refresh" content="0;url=x">'},
            TamperedError,
        ),
        ({**report_files(), "report.html": PAGE_START + b'<form action="https://example.org">'}, TamperedError),
    ],
    ids=["more-files", "fewer-files", "no-policy", "script", "refresh", "form"],
)
def test_a_page_that_would_talk(site, job_id, tmp_path, files, error):
    """A page that could make a browser fetch, send or run something is not kept, whoever signed for it."""
    finish_with_report(site, job_id, files=files)
    client = site.client()
    with pytest.raises((error, EvidenceError)):
        client.jobs.open_report(client.jobs.report(job_id), tmp_path / "out")
    assert nothing_left(tmp_path)


# ---------------------------------------------------------------- exceptions
def test_a_failed_gate_is_not_asked_for_by_mistake(site, job_id):
    """A plain request for a version that did not pass is refused before it is signed."""
    finish_with_report(site, job_id)
    with pytest.raises(PolicyError, match="FAIL"):
        site.client().models.release("helpdesk", reason="pilot")
    assert site.releases == {}


def test_an_exception_is_signed_by_both(site, job_id):
    """The request says that it asks for an exception, and the approval that it gives one."""
    finish_with_report(site, job_id)
    release = site.client().models.release("helpdesk", reason="pilot", exception=True)
    asked = ReleaseRequest.parse(release.request.payload)
    assert (asked.exception, asked.reason) == (True, "pilot")
    approved = site.client("ben").models.approve(release.id, reason="small and watched")
    given = Approval.parse(approved.approvals[0].payload)
    assert (given.exception, given.approver, given.reason) == (True, "ben", "small and watched")


@pytest.mark.parametrize("verdict", ["PASS", None])
def test_there_is_no_exception_without_a_failed_gate(site, job_id, verdict):
    """A version that passed, or was never judged, is released without one."""
    if verdict is None:
        site.finish_job(job_id)
    else:
        finish_with_report(site, job_id, verdict)
    with pytest.raises(UsageError, match="without an exception"):
        site.client().models.release("helpdesk", reason="pilot", exception=True)
    asked = ReleaseRequest.parse(site.client().models.release("helpdesk", reason="pilot").request.payload)
    assert not asked.exception


def test_a_granted_exception_is_pulled(site, job_id, tmp_path):
    """What was released as an exception is pulled like any other version."""
    finish_with_report(site, job_id)
    release = site.client().models.release("helpdesk", reason="pilot", exception=True)
    site.grant(release.id, exception=True, auto_release=False)
    assert site.client().models.pull("helpdesk", tmp_path / "out").is_dir()


# ---------------------------------------------------------------- command line
def test_report_command(cloister, site, job_id, tmp_path):
    """The report is written into a folder; verdict and headline are printed."""
    finish_with_report(site, job_id)
    code, out, _ = cloister("job", "report", job_id)
    folder = tmp_path / f"report-{job_id[:8]}"
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.json"}
    assert "FAIL" in out
    assert all(line in out for line in HEADLINE)
    code, out, _ = cloister("job", "report", job_id, "-o", "again", "--json")
    assert json.loads(out)["verdict"] == "FAIL"
    assert json.loads(out)["headline"] == HEADLINE


def test_a_headline_cannot_take_over_a_terminal(cloister, site, job_id):
    """Control characters of a headline are not passed to the terminal."""
    data = json.dumps({"verdict": "FAIL", "headline": ["\x1b[2Jgone\nmore", 5, "x" * 9000]}).encode()
    finish_with_report(site, job_id, files={**report_files(), "report.json": data})
    _, out, _ = cloister("job", "report", job_id)
    assert "\x1b" not in out
    assert "?[2Jgone?more" in out
    assert max(len(line) for line in out.splitlines()) < 600


@pytest.mark.parametrize("data", [b"not json", b"[]", b'{"headline": 5}', b"\xff"])
def test_a_report_without_a_headline(cloister, site, job_id, data):
    """Data that are not as expected take nothing away from the page and the signed verdict."""
    finish_with_report(site, job_id, files={**report_files(), "report.json": data})
    code, out, _ = cloister("job", "report", job_id)
    assert (code, "FAIL" in out) == (0, True)


def test_numeric_command(cloister, site, job_id, tmp_path):
    """An auditor reads the figures by the names of the signed specification, and keeps what proves them."""
    report = finish_with_report(site, job_id)
    for_auditors(report)
    code, out, _ = cloister("job", "report", job_id, "--numeric", "-o", "kept", person="dora")
    assert code == 0
    assert "host gpu-1, verified" in out
    assert ["0", "flip_rate", "gender", "all", "400", "0.25", "0.04"] in [line.split()[:7] for line in out.splitlines()]
    assert ["0", "level", "FAIL", "flip_rate", "gender"] in [line.split() for line in out.splitlines()]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    assert set(kept) == {"figures.json", "result.dsse", "authorisation.dsse", "spec.json"}
    assert sha256(kept["figures.json"]) == report.result.figures_sha256
    assert sha256(kept["spec.json"]) == report.authorisation.spec_sha256
    code, out, _ = cloister("job", "report", job_id, "--numeric", "--json", person="dora")
    assert json.loads(out) == json.loads(report.answer.figures)


def test_identity_option(cloister, site, job_id, tmp_path):
    """The report opens with the recovery key from a file."""
    finish_with_report(site, job_id)
    (tmp_path / "recovery").write_text(f"{site.recovery}\n")
    code, _, err = cloister("job", "report", job_id, "-o", "out", person="ben")
    assert (code, "recovery key of team alpha" in err) == (1, True)
    assert cloister("job", "report", job_id, "-o", "out", "--identity", "recovery", person="ben")[0] == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == PAGE


def test_exception_commands(cloister, site, job_id, monkeypatch):
    """Asking needs the option; an approver is told plainly what is approved, and is asked."""
    finish_with_report(site, job_id)
    code, _, err = cloister("model", "release", "helpdesk", "--reason", "pilot", "--no-wait")
    assert (code, "FAIL" in err) == (6, True)
    code, out, _ = cloister("model", "release", "helpdesk", "--reason", "pilot", "--exception", "--no-wait")
    assert code == 0
    release_id = out.split()[1]
    asked = []
    monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
    code, _, err = cloister("model", "approve", release_id, "--reason", "watched", person="ben")
    assert code == 0
    assert "did not pass the gate" in err
    assert "EXCEPTION" in asked[0]
    assert Approval.parse(site.releases[release_id].approvals[0].payload).exception


def test_watch_and_show_say_the_verdict(cloister, site, job_id):
    """The end of a job and the version show the gate's word."""
    report = finish_with_report(site, job_id)
    site.versions[job_id].dossier.metrics_after["debias_verdict"] = -1.0
    assert report.result.metrics == verdict_metrics("FAIL")
    out = cloister("job", "watch", job_id)[1]
    assert ["gate", "FAIL;"] in [line.split()[:2] for line in out.splitlines()]
    out = cloister("model", "show", "helpdesk")[1]
    assert ["gate", "FAIL"] in [line.split()[:2] for line in out.splitlines()]
    assert "debias_verdict" not in out


def test_the_numbers_tell_what_items_and_rows_share(cloister, site, job_id):
    """Beside each figure stands how many items name a word at hand; the rows that name a test word have lines."""
    report = finish_with_report(site, job_id)
    signed = report.authorisation
    rows = replace(FIGURE, kind="job", items=1034, clusters=0, values={"left_out": "566", "crossing": "77"})
    figures = (replace(FIGURE, values={"bar": "0.02", "overlap": "71"}), rows)
    made = figures_of(job_id, signed.spec_sha256, signed.policy_sha256, figures=figures).to_payload()
    report.answer.figures = made
    report.sign(site, figures_sha256=sha256(made))
    code, out, err = cloister("job", "report", job_id, "--numeric")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["0", "flip_rate", "gender", "all", "400", "0.02", "71"] in lines
    assert ["rows", "to", "fit", "on", "or", "choose", "by", "1034"] in lines
    assert ["left", "out,", "naming", "a", "test", "word", "566"] in lines
    assert ["kept,", "naming", "a", "test", "word", "77"] in lines
