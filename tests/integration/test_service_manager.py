# SPDX-License-Identifier: Apache-2.0
"""What the three services tell the service manager that started them."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from builders import Site
from cloister.admin.admit import admit_host
from cloister.admin.root import create_root
from cloister.sd_notify import ServiceManager
from cloister_server.database.engine import open_database
from cloister_server.journal import Journal
from cloister_server.migrations.schema import upgrade
from cloister_server.server import build_site
from cloister_server.watchdog import keep_alive
from cloister_workers.init import init_host, install_welcome
from keyagent_process import running_keyagent, write_directory
from notify_socket import NotifySocket, notify_socket
from served_site import Founded, sqlite_url
from server_process import ROOT, server_process
from waiting import eventually


def environment(told: NotifySocket, seconds: float) -> dict[str, str]:
    return {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": str(int(seconds * 1e6))}


@pytest.mark.parametrize("abstract", [False, True])
def test_the_control_plane_tells_how_it_is(tmp_path: Path, postgres_url: Callable[[], str], abstract: bool) -> None:
    """It is ready when it serves, alive again and again, and says that it stops when it is told to."""
    founded, url = Founded(tmp_path), postgres_url()
    database = open_database(url)
    upgrade(database)
    with (
        notify_socket(tmp_path, abstract=abstract) as told,
        server_process(founded, url, given=environment(told, 1)) as server,
    ):
        assert {"STATUS": "serving"} == told.next()
        assert {"READY": "1", "STATUS": f"serving on port {server.port}"} == told.next()
        assert ["1", "1"] == [told.next()["WATCHDOG"], told.next()["WATCHDOG"]]
        server.process.send_signal(signal.SIGTERM)
        assert "1" == told.until("STOPPING")["STOPPING"]
        assert 0 == server.process.wait(60)
    database.dispose()


def test_without_the_log_there_is_no_sign_of_life(tmp_path: Path, postgres_url: Callable[[], str]) -> None:
    """While the log's head cannot be read the control plane gives no sign, and it does again afterwards."""
    founded, url = Founded(tmp_path), postgres_url()
    database = open_database(url)
    upgrade(database)
    with notify_socket(tmp_path) as told, server_process(founded, url, given=environment(told, 0.4)) as server:
        told.until("WATCHDOG")
        with database.writer.begin() as connection:
            connection.execute(text("ALTER TABLE audit_head RENAME TO audit_head_away"))
        before = server.said().count("no_sign_of_life")
        # Each look that fails says so; between the third and the sixth of them not one sign was sent.
        eventually(lambda: server.said().count("no_sign_of_life") >= before + 3, "looks that fail")
        told.waiting()
        eventually(lambda: server.said().count("no_sign_of_life") >= before + 6, "more of them")
        assert [] == told.waiting()
        with database.writer.begin() as connection:
            connection.execute(text("ALTER TABLE audit_head_away RENAME TO audit_head"))
        assert "1" == told.until("WATCHDOG")["WATCHDOG"]
    database.dispose()


def test_the_key_agent_tells_how_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ready when its socket is open, and alive while nobody calls it."""
    paths = write_directory(tmp_path / "host", Site(int(time.time())))
    with notify_socket(tmp_path) as told:
        for name, value in environment(told, 0.4).items():
            monkeypatch.setenv(name, value)
        with running_keyagent(paths) as agent:
            assert {"READY": "1", "STATUS": "host host-1"} == told.next()
            assert ["1", "1"] == [told.next()["WATCHDOG"], told.next()["WATCHDOG"]]
            agent.process.send_signal(signal.SIGTERM)
            assert "1" == told.until("STOPPING")["STOPPING"]


def test_the_agent_tells_how_it_is(tmp_path: Path) -> None:
    """It is ready and alive while there is nobody to ask: neither its key agent nor its control plane is there."""
    custody = create_root(tmp_path / "root", "test", endpoint="localhost:1")
    host = tmp_path / "host"
    install_welcome(host, admit_host(custody, init_host(host), "host-1", "default", now=int(time.time())))
    folders = os.pathsep.join(str(ROOT / name) for name in ("client", "workers"))
    with notify_socket(tmp_path) as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloister_workers", "agent", "--dir", str(host)],
            env={**os.environ, "PYTHONPATH": folders, **environment(told, 0.4)},
            stderr=subprocess.DEVNULL,
        )
        try:
            assert told.next()["STATUS"].startswith("host host-1")
            assert ["1", "1"] == [told.until("WATCHDOG")["WATCHDOG"] for _ in range(2)]
            process.send_signal(signal.SIGTERM)
            assert "1" == told.until("STOPPING")["STOPPING"]
            assert 0 == process.wait(60)
        finally:
            process.kill()
            process.wait()


def test_the_status_names_what_is_wrong(tmp_path: Path, postgres_url: Callable[[], str]) -> None:
    """While the log takes no entry the status line says so, and it says when that is over."""
    founded, url = Founded(tmp_path), postgres_url()
    database = open_database(url)
    upgrade(database)
    with notify_socket(tmp_path) as told, server_process(founded, url, given={"NOTIFY_SOCKET": told.address}):
        told.until("READY")
        for change, status in (
            ("ALTER TABLE audit_entry RENAME TO audit_entry_away", "not serving: audit_log"),
            ("ALTER TABLE audit_entry_away RENAME TO audit_entry", "serving"),
        ):
            with database.writer.begin() as connection:
                connection.execute(text(change))
            assert status == told.until("STATUS")["STATUS"]
    database.dispose()


def test_a_busy_control_plane_is_alive(tmp_path: Path) -> None:
    """While calls hold every thread of the pool, signs of life are given all the same."""
    founded, url = Founded(tmp_path), sqlite_url(tmp_path)
    database = open_database(url)
    upgrade(database)
    site = build_site(founded.config(url), database, Journal(io.StringIO()))
    free = threading.Event()

    async def watched(told: NotifySocket) -> dict[str, str]:
        held = [asyncio.create_task(site.blocking.run(free.wait)) for _ in range(site.config.pool_size)]
        signs = asyncio.create_task(keep_alive(site, ServiceManager(environment(told, 0.4))))
        try:
            return await asyncio.to_thread(told.until, "WATCHDOG")
        finally:
            free.set()
            signs.cancel()
            await asyncio.gather(*held)

    with notify_socket(tmp_path) as told:
        assert {"WATCHDOG": "1"} == asyncio.run(watched(told))
    site.blocking.close()
    database.dispose()
