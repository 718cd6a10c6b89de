# SPDX-License-Identifier: Apache-2.0
"""What is deployed exists and is hardened: commands, users, units, configuration, digests, bill of materials."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import bundle
import pytest
from sbom import Wheel, bill_of_materials

from cloister_dev.site import SERVER_MEMORY
from cloister_server.config import load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*/*.service"))
EXPOSURE = {"cloister-trainer@": 10, "cloister-keyagent": 10}
"""Ten times the score of `systemd-analyze security` that a unit may have; of one that listens or calls, 12."""


def test_there_are_units() -> None:
    """The parametrised tests below look at every service."""
    assert [unit.stem for unit in UNITS] == [
        "cloister-backup",
        "cloister-doctor",
        "cloister-server",
        "cloister-keyagent",
        "cloister-trainer@",
        "cloister-worker",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_a_unit_starts_a_command_of_the_distribution(unit: Path) -> None:
    """Every program that a unit starts is declared in pyproject.toml."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    started = re.findall(r"-venv/bin/([a-z-]+)", unit.read_text())
    assert started
    assert set(started) <= set(scripts)


@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_a_unit_is_hardened(unit: Path) -> None:
    """systemd itself scores the exposure of each unit, and it stays under its bound."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    threshold = EXPOSURE.get(unit.stem, 12)
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(unit)]
    scored = subprocess.run(command, capture_output=True, text=True, check=False)
    assert scored.returncode == 0, scored.stdout[-400:] + scored.stderr


@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_a_unit_runs_as_a_user_that_is_made(unit: Path) -> None:
    """Users and groups of a unit stand in its role's sysusers.d, or live for one instance."""
    made = (DEPLOY / "sysusers.d" / f"cloister-{unit.parent.name}.conf").read_text()
    text = unit.read_text()
    named = re.findall(r"^(?:User|Group)=(.+)$", text, re.MULTILINE)
    assert named or "DynamicUser=yes" in text
    assert all(re.search(rf"^[ug] {name}\b", made, re.MULTILINE) for name in named)


def test_the_embedded_control_plane_has_the_memory_settings_of_the_deployed_one() -> None:
    """What a soak of an embedded site shows of memory holds for the unit."""
    unit = (DEPLOY / "systemd" / "server" / "cloister-server.service").read_text()
    (line,) = re.findall(r"^Environment=(MALLOC_.*)$", unit, re.MULTILINE)
    assert dict(setting.split("=") for setting in line.split()) == SERVER_MEMORY


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    """Every key of the example is one that the control plane knows."""
    text = (DEPLOY / "examples" / "server" / "server.example.toml").read_text()
    assert "BASE64-OF-THE-ROOT'S-PUBLIC-KEY" in text
    path = tmp_path / "server.toml"
    path.write_text(text.replace("BASE64-OF-THE-ROOT'S-PUBLIC-KEY", "A" * 43 + "="))
    assert "hospital.example" == load_config(path).site


@pytest.mark.parametrize("role", sorted(bundle.REQUIREMENT))
def test_what_a_bundle_takes_along_is_there(role: str) -> None:
    """The files that a role's bundle names exist, and its distribution is one of ours."""
    for name in bundle.FILES[role]:
        assert (DEPLOY / name).is_file()
    assert any((DEPLOY / name).is_dir() for name in bundle.FOLDERS[role]) or role == "client"


def wheel(folder: Path, name: str, version: str, licence: str = "") -> Path:
    """A wheel with nothing but its metadata, and another package's beneath, as vendoring leaves them."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}"
        archive.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        archive.writestr("vendored/other-1.dist-info/METADATA", "Name: other\n")
    return path


def test_the_bill_of_materials_names_every_wheel(tmp_path: Path) -> None:
    """Name, version, digest and licence are those of the files; the same wheels give the same bytes."""
    paths = [wheel(tmp_path, "One.Two", "1.0", "License-Expression: MIT\n"), wheel(tmp_path, "three", "2")]
    wheels = [Wheel.read(path) for path in paths]
    text = bill_of_materials("worker", "9.9", wheels)
    assert text == bill_of_materials("worker", "9.9", wheels)
    document = json.loads(text)
    assert document["bomFormat"] == "CycloneDX"
    assert [(part["purl"], part.get("licenses")) for part in document["components"]] == [
        ("pkg:pypi/one-two@1.0", [{"license": {"name": "MIT"}}]),
        ("pkg:pypi/three@2", None),
    ]
    command = ["sha256sum", *map(str, paths)]
    sums = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in sums.splitlines()] == [
        part["hashes"][0]["content"] for part in document["components"]
    ]


def test_a_file_that_is_no_wheel_is_named(tmp_path: Path) -> None:
    """What holds no metadata is refused by its path."""
    path = tmp_path / "x-1-py3-none-any.whl"
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=re.escape(str(path))):
        Wheel.read(path)
