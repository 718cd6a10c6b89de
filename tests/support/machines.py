# SPDX-License-Identifier: Apache-2.0
"""Debian machines with a real systemd, in namespaces of their own, joined by a network that leads nowhere else.

A machine is a folder made by debootstrap, booted by systemd-nspawn; commands enter its namespaces.  Root is needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
PACKAGES = ("systemd-sysv", "dbus", "iproute2", "procps", "python3", "openssl", "postgresql", "faketime")
BOOT_SECONDS = 120
COMMAND_SECONDS = 600


@dataclass(frozen=True)
class Said:
    """What a command printed on a machine, and how it ended."""

    status: int
    out: str
    err: str


def base_image(folder: Path) -> Path:
    """A minimal Debian with what the install guide asks for; made once, below `folder`."""
    image = folder / f"{SUITE}-{len(PACKAGES)}"
    if (image / ".complete").exists():
        return image
    shutil.rmtree(image, ignore_errors=True)
    _host("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(image), _mirror())
    (image / ".complete").touch()
    return image


def _mirror() -> str:
    """Where this machine gets its own Debian packages from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert found, f"apt on this machine knows no {SUITE}: put its main archive into /etc/apt/sources.list.d"
    return found[0]


class Machine:
    """One machine.  `boot` and `power_off` as often as wanted; its folder stays.  Without an address it is offline."""

    def __init__(self, name: str, folder: Path, network: Network, address: str) -> None:
        self.name, self.folder, self.address = name, folder, address
        self._network = network
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Start systemd and wait until it says that it is up."""
        with (self.folder.parent / f"{self.name}.console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.folder}", f"--machine={self.name}"),
                    *("--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
                    *("--register=no", "--keep-unit"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self._leader = self._first_process()
        if self.address:
            self._network.join(self.name, self._leader, self.address)
        end = time.monotonic() + BOOT_SECONDS
        while (state := self.run("systemctl", "is-system-running").out.strip()) not in ("running", "degraded"):
            assert time.monotonic() < end, f"{self.name} is {state!r} after {BOOT_SECONDS} s: {self.console()}"
            threading.Event().wait(0.2)

    def power_off(self, *, at_once: bool = False) -> None:
        """Shut down in order, or as by a cut of the power."""
        if self._nspawn is None:
            return
        if at_once:
            os.kill(self._leader, signal.SIGKILL)
        else:
            self.run("systemctl", "poweroff", "--no-block")
        try:
            self._nspawn.wait(90)
        except subprocess.TimeoutExpired:
            os.kill(self._leader, signal.SIGKILL)
            self._nspawn.wait(30)
        self._nspawn = None

    def run(self, *command: str, stdin: str | None = None, user: str = "root") -> Said:
        """Run a command on the machine."""
        enter = ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        environment |= {"LANG": "C.UTF-8", "COLUMNS": "200"}
        done = subprocess.run(
            [*enter, *become, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=environment,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def ok(self, *command: str, stdin: str | None = None, user: str = "root") -> str:
        """The same; the command must succeed.  Returns what it printed."""
        said = self.run(*command, stdin=stdin, user=user)
        where = f"{self.name}: {' '.join(command)}: {said.status}"
        assert said.status == 0, f"{where}\n{said.out}\n{said.err}\n{self.journal()}"
        return said.out

    def shell(self, script: str, user: str = "root") -> str:
        """Run lines as the guide has them; the first that fails ends it."""
        return self.ok("bash", "-euo", "pipefail", "-c", script, user=user)

    def unplug(self) -> None:
        """Pull its cable."""
        self._network.cut(self.name)

    def plug(self) -> None:
        self._network.mend(self.name)

    def put(self, source: Path, target: str) -> None:
        """Copy a file or folder onto the machine, as an administrator's medium would bring it."""
        place = self.folder / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True)
        else:
            shutil.copy2(source, place)

    def read(self, path: str) -> bytes:
        return (self.folder / path.lstrip("/")).read_bytes()

    def journal(self, lines: int = 60) -> str:
        return self.run("journalctl", "--no-pager", "-n", str(lines), "-o", "short-precise").out

    def console(self) -> str:
        return (self.folder.parent / f"{self.name}.console").read_text(errors="replace")[-3000:]

    def _first_process(self) -> int:
        """The machine's own process 1, by its number here."""
        assert self._nspawn is not None
        path = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end and self._nspawn.poll() is None:
            for child in path.read_text().split():
                if "NSpid:\t" in (text := Path(f"/proc/{child}/status").read_text()):
                    numbers = text.split("NSpid:\t")[1].splitlines()[0].split()
                    if numbers[-1] == "1" and Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return int(child)
            threading.Event().wait(0.05)
        raise AssertionError(f"{self.name} did not boot: {self.console()}")


class Network:
    """A bridge in a namespace of its own; no way out of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def join(self, machine: str, leader: int, address: str) -> None:
        """Give the machine's namespace an interface on the bridge."""
        self._ip("link", "add", f"v-{machine}", "type", "veth", "peer", "name", "host0", "netns", str(leader))
        self._ip("link", "set", f"v-{machine}", "master", "br0", "up")
        inside = ("nsenter", f"--target={leader}", "--net", "ip")
        _host(*inside, "link", "set", "lo", "up")
        _host(*inside, "addr", "add", f"{address}/24", "dev", "host0")
        _host(*inside, "link", "set", "host0", "up")

    def cut(self, machine: str) -> None:
        """Pull the machine's cable."""
        self._ip("link", "set", f"v-{machine}", "down")

    def mend(self, machine: str) -> None:
        self._ip("link", "set", f"v-{machine}", "up")

    def open(self) -> None:
        _host("ip", "netns", "add", self.name)
        self._ip("link", "add", "br0", "type", "bridge")
        self._ip("link", "set", "br0", "up")

    def close(self) -> None:
        _host("ip", "netns", "delete", self.name)

    def _ip(self, *command: str) -> None:
        _host("ip", "-n", self.name, *command)


def _host(*command: str) -> None:
    """A command on the host of the machines."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _disk(place: Path, size: int) -> Iterator[None]:
    """A file system of `size` MiB in the place of a folder, with what was in it."""
    image, old = place.parent.with_suffix(".disk"), place.with_name(f"{place.name}.old")
    with image.open("wb") as file:
        file.truncate(size << 20)
    _host("mkfs.ext4", "-q", "-m", "0", str(image))
    place.rename(old)
    place.mkdir()
    _host("mount", "-o", "loop", str(image), str(place))
    try:
        _host("cp", "-a", f"{old}/.", str(place))
        shutil.rmtree(old)
        yield
    finally:
        _host("umount", str(place))


@contextmanager
def machines(
    folder: Path, image: Path, addresses: Sequence[tuple[str, str]], disks: Mapping[str, int]
) -> Iterator[dict[str, Machine]]:
    """Copies of the image under these names and addresses, booted; they are shut down at the end.

    `disks` gives a machine a disk of its own for /var, of so many MiB.
    """
    network = Network(f"cloister-{os.getpid()}")
    with ExitStack() as stack:
        network.open()
        stack.callback(network.close)
        hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses if address)
        made = {}
        for name, address in addresses:
            _host("cp", "-a", "--reflink=auto", str(image), str(folder / name))
            (folder / name / "etc/hostname").write_text(f"{name}\n")
            (folder / name / "etc/hosts").write_text(hosts)
            if name in disks:
                stack.enter_context(_disk(folder / name / "var", disks[name]))
            made[name] = Machine(name, folder / name, network, address)
            made[name].boot()
            stack.callback(made[name].power_off)
        yield made
