# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of a bundle: CycloneDX 1.6 in JSON (ECMA-424), a component for each wheel."""

from __future__ import annotations

import email
import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Wheel:
    """One wheel, as its own metadata describes it (PyPA core metadata)."""

    name: str
    """Normalised: lower case, words joined by '-'."""
    version: str
    sha256: str
    licence: str
    """SPDX expression or free text; empty where the package names none."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """From the file; raises ValueError where it holds no metadata."""
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            if len(found) != 1:
                raise ValueError(f"{path} holds {len(found)} METADATA files; a wheel holds one")
            metadata = email.message_from_bytes(archive.read(found[0]))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        licence = metadata.get("License-Expression") or metadata.get("License") or ""
        name = metadata["Name"].lower().replace("_", "-").replace(".", "-")
        return cls(name, metadata["Version"], sha256, licence.splitlines()[0].strip() if licence else "")


def bill_of_materials(role: str, version: str, wheels: Sequence[Wheel]) -> str:
    """The document; without time or serial number, so that the same bundle has the same bytes."""
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": f"cloister-{role}", "version": version}},
        "components": [_component(wheel) for wheel in wheels],
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _component(wheel: Wheel) -> dict[str, object]:
    package = f"pkg:pypi/{wheel.name}@{wheel.version}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": package,
        "name": wheel.name,
        "version": wheel.version,
        "purl": package,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if wheel.licence:
        component["licenses"] = [{"license": {"name": wheel.licence}}]
    return component
