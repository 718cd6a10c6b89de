# SPDX-License-Identifier: Apache-2.0
"""What is deployed exists: commands, options and configuration keys."""

import re
import tomllib
from pathlib import Path

import pytest

from cloister_server.config import load_config

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_a_unit_starts_a_command_of_the_distribution(unit: Path) -> None:
    """Every program that a unit starts is declared in pyproject.toml."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    started = re.findall(r"-venv/bin/([a-z-]+)", unit.read_text())
    assert started
    assert set(started) <= set(scripts)


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    """Every key of the example is one that the control plane knows."""
    text = (ROOT / "deploy" / "examples" / "server.toml").read_text()
    assert "BASE64-OF-THE-ROOT'S-PUBLIC-KEY" in text
    path = tmp_path / "server.toml"
    path.write_text(text.replace("BASE64-OF-THE-ROOT'S-PUBLIC-KEY", "A" * 43 + "="))
    assert "hospital.example" == load_config(path).site
