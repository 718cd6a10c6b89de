# SPDX-License-Identifier: Apache-2.0
"""A host whose control plane and trainer are doubles."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_site import FakeHost, fake_host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    with fake_host(tmp_path / "host") as made:
        yield made
