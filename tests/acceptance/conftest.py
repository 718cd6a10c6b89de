# SPDX-License-Identifier: Apache-2.0
"""A live site for the acceptance tests, and small real inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister_dev.site import publish_policy
from live_site import LiveSite, live_site
from main_job import prepare
from tiny_models import write_bert


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bert of two layers, as a directory that `cloister model import` takes."""
    directory = tmp_path_factory.mktemp("tiny-bert")
    return write_bert(directory)


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveSite]:
    """A running site with model and rows in place; founding one takes seconds, so most tests share it."""
    directory = tmp_path_factory.mktemp("site")
    with live_site(directory / "site") as running:
        prepare(running, tiny_model, directory)
        yield running


@pytest.fixture
def attentive_site(tmp_path: Path, tiny_model: Path) -> Iterator[LiveSite]:
    """A site of its own, whose worker hears every two seconds of what it is told."""
    with live_site(tmp_path / "site", start=False) as running:
        running.set_lease(8)
        running.start_all()
        publish_policy(running.layout)
        prepare(running, tiny_model, tmp_path)
        yield running


@pytest.fixture
def site(shared_site: LiveSite) -> LiveSite:
    """The shared site; what a failed test left dead runs again."""
    shared_site.revive()
    return shared_site
