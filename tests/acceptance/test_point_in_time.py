# SPDX-License-Identifier: Apache-2.0
"""The guide's way back to a moment, carried out block by block on a PostgreSQL cluster of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from psycopg import sql

from cloister_dev.site import publish_policy
from guide import Carry, Commands, steps
from live_site import LiveSite, live_site
from postgres_cluster import Cluster, cluster
from site_database import server_command, use_database
from tiny_models import classification_rows
from waiting import eventually

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "back-up-and-restore.md"
IN_RECOVERY = sql.SQL("SELECT pg_is_in_recovery()")


@dataclass
class Carried:
    """The guide's blocks in their order, with this site's places in place of the guide's."""

    site: LiveSite
    cluster: Cluster
    directory: Path
    moment: str = ""
    _blocks: list[Commands | Carry] = field(default_factory=lambda: list(steps(GUIDE.read_text(), "recovery")))

    def next(self, who: str) -> None:
        """Carry out the next block, which must be for `who`."""
        block = self._blocks.pop(0)
        assert isinstance(block, Commands)
        assert (who,) == block.machines
        lines = [self._placed(line) for line in block.lines]
        if who == "postgresql.conf":
            with (self.cluster.data / "postgresql.conf").open("a") as settings:
                settings.write("\n".join(lines) + "\n")
            return
        for line in lines:
            {"postgres": self.cluster.shell, "store": self._copy}.get(who, self._command)(line)

    def _placed(self, line: str) -> str:
        base = self.cluster.folder / "base"
        newest = max((path.name for path in base.glob("*")), default="")
        places = {
            "/srv/base/2026-11-22": str(base / newest),
            "/srv/base": str(base),
            "/srv/wal": str(self.cluster.folder / "wal"),
            "/srv/blobs": str(self.directory / "kept"),
            "/var/lib/postgresql/15/main": str(self.cluster.data),
            "/var/lib/postgresql/15": str(self.cluster.folder),
            "/var/lib/cloister-server/blobs": str(self.site.layout.server / "blobs"),
            "/etc/cloister/server.toml": str(self.site.layout.server_config),
            "2026-11-28 10:46:09+00": self.moment,
            "restored.checkpoint": str(self.directory / "restored.checkpoint"),
        }
        for named, own in places.items():
            line = line.replace(named, own)
        return line

    def _copy(self, line: str) -> None:
        """What `rsync -a` does between folders that only grow; not every machine has the program."""
        program, option, source, target = line.split()
        assert ("rsync", "-a") == (program, option)
        shutil.copytree(source, Path(target) / Path(source).name, dirs_exist_ok=True)

    def _command(self, line: str) -> None:
        program, *rest = line.split()
        root = ("--dir", str(self.site.layout.root)) if program == "cloister-admin" else ()
        self.site.ok("dana", program, *rest, *root)


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with cluster() as made:
        for name in ("wal", "base"):
            made.shell(f"mkdir {made.folder / name}")
        yield made


def push(site: LiveSite, directory: Path, name: str) -> None:
    """Push rows as one dataset."""
    rows = directory / f"{name}.jsonl"
    rows.write_bytes(classification_rows(40))
    site.ok("alice", "cloister", "dataset", "push", str(rows), "--name", name, "--purpose", "triage")


def is_there(site: LiveSite, name: str) -> bool:
    """Whether a dataset of this name is ready."""
    said = site.said("alice", "cloister", "dataset", "show", name, "--json")
    return said.status == 0 and said.json()["state"] == "DATASET_STATE_READY"


def look_at_blobs(site: LiveSite) -> list[str]:
    """What the doctor thinks of each finding about blobs."""
    command = ("cloister-server", "doctor", "--config", str(site.layout.server_config), "--json")
    found = json.loads(site.said("dana", *command).out)
    return [finding["level"] for finding in found if finding["check"] == "blobs"]


def archive(made: Cluster) -> None:
    """End the segment that is being written and wait until it is in the archive."""
    (segment,) = made.execute(sql.SQL("SELECT pg_walfile_name(pg_switch_wal())"))[0]
    eventually((made.folder / "wal" / str(segment)).exists, "the archived segment")


def test_a_mistake_is_undone(own_cluster: Cluster, tmp_path: Path) -> None:
    """A dataset that was deleted after the chosen moment is there again with its blob, what came after the moment is
    gone, the log verifies, and people follow it once the root has signed where it goes on.
    """
    with live_site(tmp_path / "site", start=False) as site:
        guide = Carried(site, own_cluster, tmp_path)
        guide.next("postgresql.conf")
        own_cluster.stop()
        own_cluster.start()
        use_database(site, own_cluster.create_database())
        assert 0 == server_command(site, "migrate").status
        site.start("server")
        publish_policy(site.layout)
        guide.next("postgres")
        push(site, tmp_path, "early")
        archive(own_cluster)
        push(site, tmp_path, "late")
        guide.next("store")
        guide.moment = str(own_cluster.execute(sql.SQL("SELECT clock_timestamp()::text"))[0][0])

        site.ok("alice", "cloister", "dataset", "delete", "late", "--yes")
        push(site, tmp_path, "after")
        assert [True, False, True] == [is_there(site, name) for name in ("early", "late", "after")]
        site.ok("carol", "cloister", "audit", "verify")
        site.stop("server")
        own_cluster.stop()

        guide.next("postgres")
        guide.next("store")
        guide.next("postgresql.conf")
        own_cluster.start()
        eventually(lambda: own_cluster.execute(IN_RECOVERY) == [(False,)], "the end of the recovery")
        assert "restored log file" in (own_cluster.folder / "log").read_text()
        guide.next("server")

        # Who saw more refuses the shorter log until the root has signed.
        site.start("server", wait=False)
        eventually(lambda: "ROLLBACK" in site.said("carol", "cloister", "audit", "verify").err, "a refusal")
        site.stop("server")
        guide.next("custodian")
        site.start("server")
        site.ok("carol", "cloister", "audit", "verify")
        assert [True, True, False] == [is_there(site, name) for name in ("early", "late", "after")]
        assert ["ok"] == look_at_blobs(site)
        push(site, tmp_path, "again")
        site.ok("carol", "cloister", "audit", "verify")
