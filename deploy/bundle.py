# SPDX-License-Identifier: Apache-2.0
"""Build the offline bundle of a role: `python deploy/bundle.py server|worker|client [--sign-key KEY.pem]`.

dist/cloister-VERSION-ROLE.tar holds everything that a host without a network needs beside Debian and Python: wheels
with their digests, units, examples, documentation, a bill of materials, and the installer.  SHA256SUMS names every
file, SHA256SUMS.sig signs it (Ed25519; `openssl pkeyutl -verify -rawin` checks it).  The same commit gives the same
bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).parent))
from sbom import Wheel, bill_of_materials

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENT = {"server": "cloister[server]", "worker": "cloister[worker]", "client": "cloister-client"}
FOLDERS = {
    "server": ("systemd/server", "examples/server", "postgres", "monitoring"),
    "worker": ("systemd/worker", "systemd/worker-gpu", "examples/worker"),
    "client": (),
}
FILES = {
    "server": ("sysusers.d/cloister-server.conf", "tmpfiles.d/cloister-server.conf"),
    "worker": ("sysusers.d/cloister-worker.conf", "tmpfiles.d/cloister-worker.conf"),
    "client": (),
}


@dataclass(frozen=True)
class Release:
    """What is bundled, from where, as of when."""

    role: str
    source: Path
    version: str
    epoch: int
    """Seconds since 1970 that every file carries: the commit's, so that the same commit gives the same bytes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one bundle; prints its path and digest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("role", choices=sorted(REQUIREMENT))
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout to bundle")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the bundle")
    parser.add_argument("--sign-key", type=Path, help="Ed25519 private key (PEM); without one, the bundle is unsigned")
    wanted = parser.parse_args(arguments)
    version = tomllib.loads((wanted.source / "pyproject.toml").read_text())["project"]["version"]
    release = Release(wanted.role, wanted.source, version, _epoch(wanted.source))
    key = _signing_key(wanted.sign_key) if wanted.sign_key else None
    name = f"cloister-{release.version}-{release.role}"
    folder = wanted.out / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _fill(release, folder)
    _seal(folder, key)
    target = wanted.out / f"{name}.tar"
    _pack(folder, target, release.epoch)
    shutil.rmtree(folder)
    sys.stdout.write(f"{target}  {target.stat().st_size >> 20} MiB  sha256 {_sha256(target)}\n")
    return 0


def _epoch(source: Path) -> int:
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    command = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _signing_key(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"{path} is no Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out {path}")
    return key


def _fill(release: Release, folder: Path) -> None:
    deploy = release.source / "deploy"
    wheels = _wheels(release, folder / "wheels")
    (folder / "requirements.txt").write_text(_requirements(wheels))
    (folder / "sbom.cdx.json").write_text(bill_of_materials(release.role, release.version, wheels))
    (folder / "VERSION").write_text(f"{release.version}\n")
    (folder / "ROLE").write_text(f"{release.role}\n")
    shutil.copy2(deploy / "install", folder / "install")
    shutil.copytree(release.source / "docs", folder / "docs")
    shutil.copy2(release.source / "CHANGELOG.md", folder / "docs")
    for name in FOLDERS[release.role]:
        if (deploy / name).is_dir():
            shutil.copytree(deploy / name, folder / name)
    for name in FILES[release.role]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(deploy / name, folder / name)


def _wheels(release: Release, folder: Path) -> list[Wheel]:
    """Our own wheels, those that they need at the versions of constraints.txt, and pip's."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--wheel-dir", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(release.epoch)}
    own = [str(release.source / "client"), *([str(release.source)] if release.role != "client" else [])]
    constraints = ["--constraint", str(release.source / "constraints.txt")]
    subprocess.run([*pip, "--no-deps", *own], check=True, env=environment)
    needed = [REQUIREMENT[release.role], "pip"]
    subprocess.run([*pip, *constraints, "--find-links", str(folder), *needed], check=True, env=environment)
    return [Wheel.read(path) for path in sorted(folder.glob("*.whl"))]


def _requirements(wheels: Sequence[Wheel]) -> str:
    """A line a wheel, for `pip install --require-hashes`; pip itself stays outside the environment."""
    lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}" for wheel in wheels if wheel.name != "pip"]
    return "\n".join(lines) + "\n"


def _seal(folder: Path, key: Ed25519PrivateKey | None) -> None:
    """The list of digests, and its signature."""
    names = [path.relative_to(folder).as_posix() for path in _files(folder)]
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in names).encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    if key is not None:
        (folder / "SHA256SUMS.sig").write_bytes(key.sign(sums))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _pack(folder: Path, target: Path, epoch: int) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = epoch
        member.mode = 0o755 if member.isdir() or member.name.endswith("/install") else 0o644
        return member

    with tarfile.open(target, "w") as archive:
        for path in _files(folder):
            archive.add(path, f"{folder.name}/{path.relative_to(folder).as_posix()}", filter=plain)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
