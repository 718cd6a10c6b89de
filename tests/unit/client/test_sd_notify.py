# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

from cloister.sd_notify import ServiceManager
from notify_socket import notify_socket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_arrive_as_datagrams(tmp_path: Path, abstract: bool) -> None:
    """Each message is one datagram of words, on a path and on an abstract name, with its status on one line."""
    with notify_socket(tmp_path, abstract=abstract) as told:
        manager = ServiceManager({"NOTIFY_SOCKET": told.address})
        manager.ready("serving\non 8443")
        manager.status("busy")
        manager.stopping("bye")
        assert {"READY": "1", "STATUS": "serving on 8443"} == told.next()
        assert {"STATUS": "busy"} == told.next()
        assert {"STOPPING": "1", "STATUS": "bye"} == told.next()


def test_signs_of_life_are_not_sent_more_often_than_needed(tmp_path: Path) -> None:
    """Of many signs in a quarter of the interval one is sent, and the next one after it."""
    clock = Clock()
    with notify_socket(tmp_path) as told:
        manager = ServiceManager({"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "8000000"}, clock)
        assert 4.0 == manager.watchdog_interval
        for clock.now in (0.0, 0.5, 1.9, 2.0):
            manager.alive()
        manager.status("end")
        assert [{"WATCHDOG": "1"}, {"WATCHDOG": "1"}, {"STATUS": "end"}] == [told.next(), told.next(), told.next()]


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-3"}, None),
        ({}, None),
    ],
)
def test_who_is_watched(environment: dict[str, str], interval: float | None) -> None:
    """Only a process that is meant, with an interval that is a number above 0, gives signs of life."""
    assert interval == ServiceManager({"NOTIFY_SOCKET": "/nowhere", **environment}).watchdog_interval


def test_nobody_who_listens_stops_nobody(tmp_path: Path) -> None:
    """Without a manager, with a relative address, or with a socket that is gone, messages are dropped."""
    for environment in ({}, {"NOTIFY_SOCKET": "notify"}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        manager = ServiceManager(environment)
        manager.ready("serving")
        manager.alive()
