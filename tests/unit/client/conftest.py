# SPDX-License-Identifier: Apache-2.0
"""A site in memory and what a member puts into it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from memory_site import MemorySite

ROWS = b'{"text": "the printer is on fire", "label": "printing"}\n{"text": "no network", "label": "network"}\n'


@pytest.fixture
def site(tmp_path: Path) -> MemorySite:
    return MemorySite(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 500)
    return folder


@pytest.fixture
def spec(site: MemorySite, rows: Path, model_dir: Path) -> Callable[[], dict[str, object]]:
    """Push a dataset and a base model, and return a specification that names them."""

    def make() -> dict[str, object]:
        client = site.client()
        client.datasets.push(rows, "tickets", ["routing"])
        client.models.import_dir(model_dir, "minilm", "Apache-2.0", "tests")
        return {
            "model": "minilm",
            "training_dataset": "tickets",
            "purpose": "routing",
            "suffix": "helpdesk",
            "method": {"classification": {}},
        }

    return make
