# SPDX-License-Identifier: Apache-2.0
"""Notices to a real program and to a real HTTPS server on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from cloister_server.blocking import Blocking
from cloister_server.database.engine import open_database
from cloister_server.errors import DatabaseUnavailableError
from cloister_server.journal import Journal
from cloister_server.metrics.recorder import Recorder
from cloister_server.migrations.schema import upgrade
from cloister_server.notices.command import ENVIRONMENT, CommandTarget
from cloister_server.notices.outbox import NoticeRow, Outbox
from cloister_server.notices.sender import Pace, Sender
from cloister_server.notices.target import TIME_LIMIT, Fault, Target
from cloister_server.notices.webhook import WebhookTarget, signature
from cloister_server.notifier import Notifier
from notice_receiver import Receiver, receiver
from queue_bench import Bench
from served_site import Founded, sqlite_url
from waiting import eventually

NOW = 1_900_000_000
SECRET = b"0123456789abcdef0123456789abcdef"
NOTICE = NoticeRow(
    id="7f0c",
    target="url",
    job_id="j-1",
    body='{"format":"cloister-notice/1","id":"7f0c","job_id":"j-1"}',
    attempts=1,
    created_at=0,
    due_at=0,
)
LIMIT = 60.0


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return Founded(tmp_path_factory.mktemp("founded"))


@pytest.fixture
def https(founded: Founded) -> Iterator[Receiver]:
    with receiver(founded.directory / "tls.crt", founded.directory / "tls.key") as running:
        yield running


def trusting(founded: Founded) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=founded.directory / "ca.crt")


def webhook(url: str, context: ssl.SSLContext | None, limit: float = LIMIT) -> WebhookTarget:
    return WebhookTarget(url, context, SECRET, limit, lambda: NOW)


def delivered(target: Target, notice: NoticeRow = NOTICE) -> Fault | None:
    return asyncio.run(target.deliver(notice))


def script(folder: Path, text: str) -> str:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_notice_is_posted_and_signed(founded: Founded, https: Receiver) -> None:
    """The receiver gets path, query, JSON, id and time, and a signature over id, time and body."""
    assert delivered(webhook(https.url, trusting(founded))) is None
    request = https.received[0]
    assert ("/notices?team=all", NOTICE.body.encode()) == (request.path, request.body)
    assert {
        "content-type": "application/json",
        "webhook-id": "7f0c",
        "webhook-timestamp": str(NOW),
        "webhook-signature": signature(SECRET, "7f0c", NOW, NOTICE.body.encode()),
    }.items() <= request.headers.items()


def test_a_receiver_of_another_authority_gets_nothing(https: Receiver) -> None:
    """A certificate that does not verify ends the delivery before a byte of the notice is sent."""
    fault = delivered(webhook(https.url, ssl.create_default_context()))
    assert fault is not None
    assert ("certificate", []) == (fault.word, https.received)


def test_a_redirect_is_not_followed(founded: Founded, https: Receiver) -> None:
    """A receiver that sends elsewhere has refused."""
    with receiver() as elsewhere:
        https.statuses, https.headers = [307], {"Location": elsewhere.url}
        assert Fault("http_status", 307) == delivered(webhook(https.url, trusting(founded)))
        assert [] == elsewhere.received


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that other programs take a proxy from change nothing."""
    with receiver() as direct:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert delivered(webhook(direct.url, None)) is None
        assert 1 == len(direct.received)


def test_a_receiver_that_is_not_there_is_a_fault() -> None:
    """A refused connection is told by its number."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fault = delivered(webhook(f"http://127.0.0.1:{unused.getsockname()[1]}/", None))
    assert fault is not None
    assert "connection" == fault.word


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"SSH-2.0-OpenSSH\r\n", Fault("no_http")),
        (b"x" * 20_000, Fault("no_http")),
        (b"", Fault("no_http")),
        (b"HTTP/1.1 503 \r\n\r\n", Fault("http_status", 503)),
        (b"HTTP/1.0 200 OK\r\n\r\n", None),
        (None, TIME_LIMIT),
    ],
    ids=["another protocol", "endless line", "nothing", "refusal", "taken", "silence"],
)
def test_an_answer_is_read_to_its_first_line_at_most(answer: bytes | None, fault: Fault | None) -> None:
    """Whatever a receiver answers, or does not, ends in a fixed word and a figure, or in delivery."""

    async def talk() -> Fault | None:
        done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}")
            if answer is None:
                await done.wait()
            else:
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = await webhook(f"http://127.0.0.1:{port}/", None, 0.2 if answer is None else LIMIT).deliver(NOTICE)
        done.set()
        server.close()
        return found

    assert fault == asyncio.run(talk())


def test_a_hook_reads_the_notice_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard input is the notice, its environment has nothing of the service, its arguments are its own."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    hook = script(tmp_path, f'cat > {tmp_path}/told; env > {tmp_path}/env; echo "$@" > {tmp_path}/arguments')
    assert delivered(CommandTarget((hook, "a b", "$HOME"), LIMIT)) is None
    assert NOTICE.body + "\n" == (tmp_path / "told").read_text()
    assert "a b $HOME\n" == (tmp_path / "arguments").read_text()
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert set(ENVIRONMENT) == names - {"PWD", "SHLVL", "_", "OLDPWD"}


def test_a_hook_that_does_not_read_has_taken_it(tmp_path: Path) -> None:
    """A program that ends with 0 without reading its input is no failure."""
    assert delivered(CommandTarget((script(tmp_path, "exit 0"),), LIMIT)) is None


def test_a_hook_that_fails_is_told_by_its_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Only the exit status is known of it: what it prints is dropped."""
    hook = script(tmp_path, 'echo "patient Jones"; echo "patient Jones" >&2; exit 3')
    assert Fault("exit_status", 3) == delivered(CommandTarget((hook,), LIMIT))
    assert ("", "") == capfd.readouterr()
    assert "not_started" == getattr(delivered(CommandTarget((str(tmp_path / "absent"),), LIMIT)), "word", "")


def test_a_hook_that_hangs_is_ended(tmp_path: Path) -> None:
    """At the time limit the program is killed, and its notice counts as not taken."""
    assert TIME_LIMIT == delivered(CommandTarget((script(tmp_path, "sleep 600"),), 0.2))


def test_nothing_of_a_hook_outlives_the_server(tmp_path: Path) -> None:
    """When the server stops, the program that runs ends, and what it started too."""
    hook = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/child; wait")

    async def stopped() -> None:
        task = asyncio.create_task(CommandTarget((hook,), LIMIT).deliver(NOTICE))
        await asyncio.to_thread(eventually, (tmp_path / "child").exists, "the hook runs")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(stopped())
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not _lives(child), "the hook's child ends")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" != Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


@dataclass
class Clock:
    now: int = NOW * 1000

    def __call__(self, connection: Connection) -> int:
        return self.now


@dataclass(frozen=True)
class Office:
    """A queue that tells a receiver, and its sender."""

    bench: Bench
    sender: Sender
    clock: Clock
    said: io.StringIO
    metrics: Recorder

    def sends(self) -> bool:
        return asyncio.run(self.sender.send_next())

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value(f"cloister_notices_{outcome}_total", {"kind": "url"}) or 0.0


@pytest.fixture
def office(founded: Founded, https: Receiver, tmp_path: Path) -> Iterator[Office]:
    database = open_database(sqlite_url(tmp_path))
    upgrade(database)
    clock, said, metrics, blocking = Clock(), io.StringIO(), Recorder(), Blocking(2)
    outbox = Outbox(("url",), clock)
    bench = Bench(founded, database, outbox)
    pace = Pace(limit=LIMIT, give_up=100.0, poll=1.0)
    target = webhook(https.url, trusting(founded))
    sender = Sender(
        bench.unit_of_work, blocking, Journal(said), metrics, outbox, target, Notifier(), pace, chance=lambda: 1.0
    )
    yield Office(bench, sender, clock, said, metrics)
    blocking.close()
    database.dispose()


def cancelled(bench: Bench) -> str:
    signed = bench.queued()
    bench.cancel(signed.id)
    return signed.id


def test_a_notice_is_sent_once_and_forgotten(office: Office, https: Receiver) -> None:
    """The receiver gets one request for the job that ended, and nothing is left to do."""
    job_id = cancelled(office.bench)
    assert (True, False) == (office.sends(), office.sends())
    body = json.loads(https.received[0].body)
    assert (job_id, "CANCELLED") == (body["job_id"], body["state"])
    assert (0, 1.0, 0.0) == (office.bench.count("notice"), office.count("sent"), office.count("failed"))
    assert "" == office.said.getvalue()


def test_a_failed_notice_is_sent_again_later_each_time(office: Office, https: Receiver) -> None:
    """After 5, 10 and 20 seconds the same words come again, with the same id, until they are taken."""
    cancelled(office.bench)
    https.statuses = [500, 502, 503, 200]
    for wait in (5, 10, 20):
        assert office.sends()
        office.clock.now += wait * 1000 - 1
        assert not office.sends()
        office.clock.now += 1
    assert office.sends()
    assert [1, 4] == [len({request.body for request in https.received}), len(https.received)]
    assert (0, 1.0, 3.0) == (office.bench.count("notice"), office.count("sent"), office.count("failed"))
    lines = [json.loads(line) for line in office.said.getvalue().splitlines()]
    assert [("warn", "notice_failed", "http_status", figure) for figure in (500, 502, 503)] == [
        (line["level"], line["event"], line["fault"], line["figure"]) for line in lines
    ]


def test_a_notice_is_given_up_in_the_end(office: Office, https: Receiver) -> None:
    """Past the configured time a failure is the last one: an error in the journal, a metric, and no more tries."""
    job_id = cancelled(office.bench)
    https.statuses = [500]
    office.clock.now += 99_000
    assert office.sends()
    office.clock.now += 3_600_000
    assert not office.sends()
    line = json.loads(office.said.getvalue())
    assert ("error", "notice_given_up", job_id) == (line["level"], line["event"], line["job"])
    assert (0, 1.0) == (office.bench.count("notice"), office.count("given_up"))


def test_a_sender_survives_a_database_that_does_not_answer(office: Office, https: Receiver) -> None:
    """A look that fails is a line of the journal, and the next one, at the next wake, sends what is due."""
    cancelled(office.bench)

    class Flaky(Outbox):
        looks = 0

        def is_due(self, connection: Connection, target: str) -> bool:
            self.looks += 1
            if self.looks == 1:
                raise DatabaseUnavailableError("the database does not answer; try again")
            return super().is_due(connection, target)

    async def send() -> None:
        news = Notifier()
        news.start()
        sender = replace(office.sender, outbox=Flaky(("url",), office.clock), news=news)
        task = asyncio.create_task(sender.run())
        while not https.received or office.count("sent") == 0:
            news.notify()
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(send())
    line = json.loads(office.said.getvalue())
    assert ("notices_failed", "DatabaseUnavailableError", "url") == (line["event"], line["type"], line["target"])
    assert 1 == len(https.received)


def test_the_shown_hook_works(tmp_path: Path) -> None:
    """The script of the how-to page keeps each notice once, under its id."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "tell-when-jobs-end.md").read_text(encoding="utf-8")
    text = page.split("```sh title=told\n")[1].split("```")[0]
    hook = tmp_path / "told"
    hook.write_text(text.replace("/var/lib/cloister-server/told", str(tmp_path / "folder")))
    hook.chmod(0o755)
    for _ in range(2):
        assert delivered(CommandTarget((str(hook),), LIMIT)) is None
    kept = {path.name: path.read_text() for path in (tmp_path / "folder").iterdir()}
    assert {"7f0c.json": NOTICE.body + "\n"} == kept
