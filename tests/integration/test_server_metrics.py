# SPDX-License-Identifier: Apache-2.0
"""What a scrape of a served site shows."""

import http.client
import io
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cloister.api.v1 import identity_pb2, jobs_pb2, workers_pb2
from cloister.tls import tls_key_pem
from cloister_server.config import load_config
from cloister_server.errors import ConfigError
from cloister_server.journal import Journal
from cloister_server.metrics.catalogue import METRICS
from postgres_server import PostgresServer
from served_site import Founded, ServedSite, refusal, served, sqlite_url
from server_process import write_config
from site_objects import policy, publish_policy, push_dataset, push_model, sign_job

PORT = re.compile(r'"event": "metrics".*"port": (\d+)')


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServedSite, int]]:
    """A site that serves metrics, and their port."""
    directory: Path = tmp_path_factory.mktemp("site")
    if request.param == "sqlite":
        url = sqlite_url(directory)
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database()
    said = io.StringIO()
    with served(Founded(directory), url, Journal(said), metrics_address="127.0.0.1:0") as site:
        found = PORT.search(said.getvalue())
        assert found is not None
        yield site, int(found[1])


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def figures(port: int) -> dict[str, float]:
    """Sample with its labels -> value."""
    lines = [line for line in get(port)[1].splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_a_scrape_shows_the_queue_the_log_and_the_calls(live: tuple[ServedSite, int]) -> None:
    """A waiting job is one in its pool and then a leased one, its calls are counted, and the log's figures are those of
    the database; every name is of the catalogue, and no team, person or dataset is named.
    """
    site, port = live
    alice, host = site.caller("alice"), site.caller("host-1")
    digest = publish_policy(site, policy(site.founded))
    training, model = push_dataset(site, "alice"), push_model(site, "alice")
    signed = sign_job(site.founded, "alice", training, model, digest)
    alice.jobs.CreateJob(signed.request(), timeout=30)
    refusal(lambda: alice.jobs.GetJob(jobs_pb2.GetJobRequest(id="none"), timeout=30))
    site.caller("alice").identity.GetSite(identity_pb2.GetSiteRequest(), timeout=30)
    waiting = figures(port)
    queue = '{kind="job",pool="default"}'
    assert (1, 0) == (waiting[f"cloister_queue_depth{queue}"], waiting[f"cloister_leased{queue}"])
    assert 0 <= waiting[f"cloister_queue_oldest_seconds{queue}"] < 600
    assert 1 == waiting['cloister_calls_total{code="NOT_FOUND",method="JobService/GetJob"}']
    assert 1 == waiting['cloister_call_seconds_count{method="JobService/CreateJob"}']
    assert 1 == waiting['cloister_audit_entries_total{action="job.submit"}']
    assert len(site.entries()) == waiting["cloister_log_entries"]
    assert waiting["cloister_log_entries"] >= waiting["cloister_checkpoint_entries"] > 0
    assert 0 <= waiting["cloister_checkpoint_age_seconds"] < 600
    assert site.founded.roster.expires_at == waiting["cloister_roster_expires_timestamp_seconds"]
    assert waiting["cloister_certificate_expires_timestamp_seconds"] > site.founded.now
    assert (1, 1) == (waiting["cloister_serving"], waiting["cloister_database_up"])
    assert waiting["cloister_store_free_bytes"] > waiting["cloister_store_reserve_bytes"] == 1 << 20

    host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(wait_seconds=0), timeout=30)
    leased = figures(port)
    assert (0, 0, 1) == tuple(
        leased[f"cloister_{name}{queue}"] for name in ("queue_depth", "queue_oldest_seconds", "leased")
    )
    text = get(port)[1]
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {metric.name for metric in METRICS} == exported
    private = {"alice", "blue", "host-1", signed.id, training.id, training.manifest.name}
    assert set() == {word for word in private if re.search(rf'"{re.escape(word)}"', text)}


def test_nothing_else_is_answered(live: tuple[ServedSite, int]) -> None:
    """Another path is not found, another method not allowed, and what is no HTTP gets no answer."""
    _, port = live
    assert (404, 405) == (get(port, "/")[0], get(port, method="POST")[0])


def test_without_the_database_the_rest_is_shown(live: tuple[ServedSite, int]) -> None:
    """Where the log cannot be read, the scrape says so and still has the store's and the process's figures."""
    site, port = live
    rename = "ALTER TABLE audit_checkpoint RENAME TO audit_checkpoint_away"
    back = "ALTER TABLE audit_checkpoint_away RENAME TO audit_checkpoint"
    with site.database.writer.begin() as connection:
        connection.execute(sa.text(rename))
    try:
        shown = figures(port)
    finally:
        with site.database.writer.begin() as connection:
            connection.execute(sa.text(back))
    assert (0, False) == (shown["cloister_database_up"], "cloister_log_entries" in shown)
    assert shown["cloister_store_free_bytes"] > 0
    assert 1 == figures(port)["cloister_database_up"]


def test_off_loopback_an_authority_is_needed(tmp_path: Path) -> None:
    """An address that others reach is refused without `client_ca`, with the line and what to do."""
    founded = Founded(tmp_path)
    open_door = '[metrics]\naddress = "0.0.0.0:9464"\n'
    with pytest.raises(ConfigError, match=r"server\.toml:\d+: \[metrics\] address: .*is not loopback"):
        load_config(write_config(founded, sqlite_url(tmp_path), extra=open_door), {})
    closed = f'{open_door}client_ca = "ca.crt"\n'
    assert "0.0.0.0:9464" == load_config(write_config(founded, sqlite_url(tmp_path), extra=closed), {}).metrics_address


def test_with_an_authority_only_its_clients_may_read(tmp_path: Path) -> None:
    """A client with a certificate of the authority gets the page, one without gets no answer."""
    founded, said, ca = Founded(tmp_path), io.StringIO(), tmp_path / "ca.crt"
    key, certificate = tmp_path / "reader.key", tmp_path / "reader.crt"
    key.write_bytes(tls_key_pem(founded.people["dana"].tls))
    certificate.write_text(founded.certificates["dana"])
    with served(founded, sqlite_url(tmp_path), Journal(said), metrics_address="127.0.0.1:0", metrics_client_ca=ca):
        found = PORT.search(said.getvalue())
        assert found is not None
        context = ssl.create_default_context(cafile=str(ca))
        with pytest.raises(OSError):
            page(int(found[1]), context)
        context.load_cert_chain(certificate, key)
        assert "cloister_serving 1.0" in page(int(found[1]), context)


def page(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
