# SPDX-License-Identifier: Apache-2.0
"""A site on machines of its own: installed as the guide says, then looked into, rebooted, killed, cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployed import REFUSED, UNAVAILABLE, UNUSABLE, Site
from guide import follow
from waiting import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
SERVICES = {
    "site": ("cloister-server",),
    "gpu1": ("cloister-keyagent", "cloister-worker", "cloister-trainer.socket"),
}
DAY = 24 * 3600
EPOCHS = 3
"""Enough that a job still trains when something is done to it."""


def test_the_guide_leads_from_bare_machines_to_a_trained_model(site: Site) -> None:
    """To the letter, in at most ten commands a machine, it ends with files that hold an adapter."""
    assert {name: len(lines) for name, lines in site.said.items() if len(lines) > 10} == {}
    pulled = site.machines["laptop"].ok("ls", "/root/helpdesk")
    assert "adapter_model.safetensors" in pulled


def test_nothing_of_the_rows_is_on_the_control_plane(site: Site) -> None:
    """No file of the control plane's machine, its database and journal included, holds a ticket."""
    rows = [json.loads(line)["text"] for line in (ROOT / "demo" / "helpdesk.jsonl").read_text().splitlines()]
    wanted = [row for row in rows if len(row) > 60][:20]
    patterns = "\n".join(wanted)
    folders = ("/var", "/etc", "/root", "/run/log", "/tmp")
    site.machines["site"].run("sync")
    found = site.machines["site"].run("grep", "-rlaF", "-f", "-", *folders, stdin=patterns)
    assert (found.status, found.out) == (1, "")


def test_nothing_of_the_rows_stays_on_the_worker_host(site: Site) -> None:
    """A trainer writes to memory alone: after the job no file of the host holds a ticket."""
    rows = [json.loads(line)["text"] for line in (ROOT / "demo" / "helpdesk.jsonl").read_text().splitlines()]
    patterns = "\n".join([row for row in rows if len(row) > 60][:20])
    folders = ("/var", "/etc", "/root", "/run", "/tmp", "/scratch", "/dev/shm")
    present = [folder for folder in folders if site.machines["gpu1"].run("test", "-d", folder).status == 0]
    found = site.machines["gpu1"].run("grep", "-rlaF", "-D", "skip", "-f", "-", *present, stdin=patterns)
    assert (found.status, found.out) == (1, "")


def test_a_trainer_is_alone(site: Site) -> None:
    """While it trains: a user of its own, no capability, no network but its own loopback, no key, no other process."""
    job = site.submit("walled", EPOCHS)
    site.await_training(job)
    gpu1 = site.machines["gpu1"]
    pid = gpu1.ok("pgrep", "-f", "cloister_workers.trainer").split()[0]
    status = dict(line.split(":", 1) for line in gpu1.ok("cat", f"/proc/{pid}/status").splitlines())
    known = {gpu1.ok("id", "-u", name).strip() for name in ("root", "cloister-worker", "cloister-keyagent")}
    assert not known & set(status["Uid"].split())
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    interfaces = gpu1.ok("nsenter", f"--target={pid}", "--net", "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    inside = ("nsenter", f"--target={pid}", "--mount", "--root", "setpriv", f"--reuid={status['Uid'].split()[0]}")
    for secret in ("/var/lib/cloister-worker/keyagent", "/var/lib/cloister-worker/agent", "/run/cloister"):
        assert gpu1.run(*inside, "--clear-groups", "ls", secret).status != 0
    assert site.finish(job) == "SUCCEEDED"
    assert gpu1.run("pgrep", "-f", "cloister_workers.trainer").out == ""


def test_a_worker_host_that_loses_its_power_goes_on_after_the_boot(site: Site) -> None:
    """The job of a host that was cut off resumes from its checkpoint when the host is back."""
    job = site.submit("power-cut", EPOCHS)
    site.await_training(job)
    site.machines["gpu1"].power_off(at_once=True)
    site.machines["gpu1"].boot()
    assert site.finish(job) == "SUCCEEDED"


def test_a_reboot_of_the_control_plane_loses_nothing(site: Site) -> None:
    """A job that runs meanwhile ends as it should, and every earlier job and model is there."""
    before = site.alice("cloister model list")
    job = site.submit("rebooted", EPOCHS)
    site.await_training(job)
    site.machines["site"].power_off()
    site.machines["site"].boot()
    assert site.finish(job) == "SUCCEEDED"
    assert set(before.splitlines()) <= set(site.alice("cloister model list").splitlines())


@pytest.mark.parametrize(("machine", "service"), [(m, s) for m, names in SERVICES.items() for s in names])
def test_a_killed_service_comes_back(site: Site, machine: str, service: str) -> None:
    """SIGKILL in the middle of a job: systemd starts it again, and the job succeeds."""
    job = site.submit(f"killed-{service.partition('.')[0]}", EPOCHS)
    site.await_training(job)
    killed = service if service.endswith(".socket") else f"{service}.service"
    if killed.endswith(".socket"):
        site.machines[machine].ok("systemctl", "kill", "--signal=KILL", "cloister-trainer@*.service")
    else:
        site.machines[machine].ok("systemctl", "kill", "--signal=KILL", killed)
    assert site.finish(job) == "SUCCEEDED"
    assert site.machines[machine].ok("systemctl", "is-active", service).strip() == "active"


def test_a_cable_that_is_pulled_in_the_middle_of_a_job(site: Site) -> None:
    """Longer than a lease lasts: the host gives the job up by itself, and finishes it when it is connected again."""
    job = site.submit("cut-off", EPOCHS)
    site.await_training(job)
    gpu1 = site.machines["gpu1"]
    gpu1.unplug()
    eventually(lambda: "lease_lost" in gpu1.journal(200), "the end of the lease", 180, 1.0)
    gpu1.plug()
    assert site.finish(job) == "SUCCEEDED"


def test_a_full_disk_loses_nothing(site: Site) -> None:
    """Database and store without a free block in the middle of a job: refusals that say why, and work goes on after."""
    job = site.submit("full-disk", EPOCHS)
    site.await_training(job)
    machine = site.machines["site"]
    with site.full_disk():
        refused = site.machines["laptop"].run(
            *("cloister", "dataset", "push", "/root/tickets.jsonl", "--name", "more", "--purpose", "triage"),
            *("--home", "/root/alice"),
        )
        assert refused.status in (1, UNAVAILABLE)
        assert "Traceback" not in refused.err
        doctor = machine.run("runuser", "-u", "cloister-server", "--", "cloister-server", "doctor")
        assert (doctor.status, "failure  disk" in doctor.out) == (1, True), doctor.out
    follow(ROOT / "docs" / "how-to" / "find-what-is-wrong.md", site.machines, "full")
    assert site.finish(job) == "SUCCEEDED"
    site.alice("cloister dataset push /root/tickets.jsonl --name more --purpose triage")
    machine.ok("systemctl", "start", "cloister-doctor.service")


def test_an_expired_certificate_is_named_and_replaced(site: Site) -> None:
    """A member whose certificate has ended is told so; certified again by the custodian, she goes on."""
    site.certify_alice(days_ago=100)
    refused = site.machines["laptop"].run("cloister", "job", "list", "--home", "/root/alice")
    site.certify_alice()
    assert (refused.status, "expired" in refused.err) == (UNUSABLE, True)
    site.alice("cloister job list")


def test_certificates_past_half_their_life_are_renewed(site: Site) -> None:
    """With an issuing key on the control plane: by a member's next command and by a host's agent, unasked."""
    follow(ROOT / "docs" / "how-to" / "rotate-keys.md", site.machines, "issuing", {"/media/root": "/root/ceremony"})
    site.certify_alice(days_ago=60)
    site.certify_host(days_ago=60)
    site.machines["gpu1"].ok("systemctl", "restart", "cloister-worker")
    assert site.finish(site.submit("renewed", 1)) == "SUCCEEDED"
    fresh = ("openssl", "x509", "-noout", "-checkend", str(80 * DAY), "-in")
    site.machines["laptop"].ok(*fresh, "/root/alice/tls.crt")
    site.machines["gpu1"].ok(*fresh, "/var/lib/cloister-worker/agent/tls.crt")


def test_a_colleague_enrols_by_token_and_leaves_again(site: Site) -> None:
    """Off the roster, an open stream ends within a minute and nothing more is answered; the team goes on."""
    site.enrol("bob")
    laptop = site.machines["laptop"]
    job = site.submit("left-behind", EPOCHS)
    watching = f"CLOISTER_HOME=/root/bob cloister job watch {job} > /root/bob.out 2>&1; echo $? > /root/bob.status"
    laptop.ok("systemd-run", "--quiet", "--collect", "bash", "-c", watching)
    site.await_training(job)
    assert laptop.run("test", "-e", "/root/bob.status").status == 1
    words = {"alice": "bob", "/media/root": "/root/ceremony"}
    laptop.ok("bash", "-c", "echo export CLOISTER_HOME=/root/dana > /run/guide")
    follow(ROOT / "docs" / "how-to" / "when-somebody-leaves.md", site.machines, "leaves", words)
    eventually(lambda: laptop.run("test", "-e", "/root/bob.status").status == 0, "the end of bob's watch", 60, 0.5)
    assert laptop.ok("cat", "/root/bob.status").strip() == str(REFUSED)
    assert "roster" in laptop.ok("cat", "/root/bob.out")
    assert laptop.run("cloister", "job", "list", "--home", "/root/bob").status == REFUSED
    assert site.finish(job) == "SUCCEEDED"


def test_a_lost_database_and_lost_blobs_come_back_from_a_backup(site: Site) -> None:
    """Backed up by its unit, destroyed, restored as the guide says: models and log are there, and work goes on."""
    machine = site.machines["site"]
    models = site.alice("cloister model list").splitlines()
    machine.ok("systemctl", "start", "cloister-backup.service")
    machine.ok("systemctl", "stop", "cloister-server")
    machine.shell("runuser -u postgres -- dropdb --force cloister && rm -rf /var/lib/cloister-server/blobs")
    follow(ROOT / "docs" / "how-to" / "disaster-recovery.md", site.machines, "restore")
    assert set(models) <= set(site.alice("cloister model list").splitlines())
    assert site.finish(site.submit("restored", 1)) == "SUCCEEDED"
    machine.ok("systemctl", "start", "cloister-doctor.service")


def test_keys_may_lie_encrypted_on_disk(site: Site) -> None:
    """As the guide says: no key is left in the clear, the services come up with them, and a job runs."""
    for guide in ("install.md", "rotate-keys.md"):
        follow(ROOT / "docs" / "how-to" / guide, site.machines, "encrypted")
    for machine, folder in (("site", "/var/lib/cloister-server"), ("gpu1", "/var/lib/cloister-worker/keyagent")):
        assert ".key" not in site.machines[machine].ok("ls", folder)
    assert site.finish(site.submit("encrypted", 1)) == "SUCCEEDED"
    site.machines["site"].ok("systemctl", "start", "cloister-doctor.service", "cloister-backup.service")


def test_the_site_is_told_when_a_job_has_ended(site: Site) -> None:
    """The guide's hook runs inside the unit's sandbox: the notice of a job lies where the hook puts it."""
    page = ROOT / "docs" / "how-to" / "tell-when-jobs-end.md"
    script = page.read_text().split("```sh title=told\n")[1].split("```")[0]
    machine = site.machines["site"]
    machine.ok("rm", "-f", "/run/guide")
    machine.ok("tee", "/root/told", stdin=script)
    follow(page, site.machines, "hook")
    job = site.submit("told", 1)
    assert site.finish(job) == "SUCCEEDED"
    find = ("grep", "-rl", f'"job_id":"{job}"', "/var/lib/cloister-server/told")
    found = eventually(lambda: machine.run(*find).out.split() or None, "the notice", 60, 0.5)
    assert len(found) == 1
    assert json.loads(machine.ok("cat", found[0]))["state"] == "SUCCEEDED"


def test_the_same_bundle_again_changes_nothing(site: Site) -> None:
    """The installer says what is there, and no service is disturbed."""
    machine = site.machines["site"]
    pid = machine.ok("systemctl", "show", "--property=MainPID", "cloister-server")
    said = machine.shell("cd /root/cloister-*-server && ./install server --release-key ../release.pub")
    assert "is there already" in said
    assert machine.ok("systemctl", "show", "--property=MainPID", "cloister-server") == pid


@pytest.mark.parametrize("harm", ["digest", "signature", "stowaway"])
def test_a_bundle_that_was_touched_is_not_installed(site: Site, harm: str) -> None:
    """A changed file, a list by another key, a file that the list lacks: each is refused before anything is done."""
    machine = site.machines["laptop"]
    machine.shell("rm -rf /root/touched && cp -a /root/cloister-*-client /root/touched")
    spoil = {
        "digest": "echo x >> VERSION",
        "signature": "echo x >> VERSION && sha256sum $(cut -c67- SHA256SUMS) > new && mv new SHA256SUMS",
        "stowaway": "echo x > extra",
    }[harm]
    machine.shell(f"cd /root/touched && {spoil}")
    tried = machine.run("/root/touched/install", "client", "--release-key", "/root/release.pub")
    assert tried.status == 1
    assert {"digest": "damaged", "signature": "signature", "stowaway": "does not name: extra"}[harm] in tried.err


def test_an_upgrade_and_the_way_back(site: Site, next_bundles: Path) -> None:
    """The next version takes over with everything that was there; the one before stays, and a link leads back to it."""
    models = site.alice("cloister model list").splitlines()
    units = {"site": "cloister-server", "gpu1": "cloister-keyagent cloister-worker"}
    roles = {"site": "server", "gpu1": "worker"}
    before = {
        name: site.machines[name].ok("readlink", f"/usr/lib/cloister/{roles[name]}-venv").strip() for name in roles
    }
    for name, role in roles.items():
        (tar,) = next_bundles.glob(f"*-{role}.tar")
        site.machines[name].put(tar, f"/root/next/{tar.name}")
        said = site.machines[name].shell(
            f"cd /root/next && tar xf *.tar && cd cloister-*-{role} && ./install {role} --release-key ../../release.pub"
        )
        assert f"restart       systemctl restart {units[name].split()[0]}" in said
    owner = "postgresql+psycopg://cloister_owner@/cloister?host=/run/postgresql"
    site.machines["site"].ok("runuser", "-u", "postgres", "--", "cloister-server", "migrate", "--database", owner)
    for name in roles:
        site.machines[name].shell(f"systemctl restart {units[name]}")
    assert site.finish(site.submit("upgraded", 1)) == "SUCCEEDED"
    assert set(models) <= set(site.alice("cloister model list").splitlines())
    for name, role in roles.items():
        site.machines[name].shell(
            f"ln -sfn {before[name]} /usr/lib/cloister/{role}-venv && systemctl restart {units[name]}"
        )
    assert site.finish(site.submit("gone-back", 1)) == "SUCCEEDED"


def test_uninstalling_keeps_what_is_the_organisations(site: Site) -> None:
    """Programs and units go; configuration, keys and data stay, and the same bundle brings all back."""
    machine = site.machines["gpu1"]
    machine.shell("cd /root/cloister-*-worker && ./install uninstall worker")
    assert machine.run("cloister-worker", "--help").status != 0
    assert machine.run("systemctl", "is-active", "cloister-worker").status != 0
    machine.ok("test", "-s", "/var/lib/cloister-worker/keyagent/state.json")
    machine.ok("test", "-s", "/etc/credstore.encrypted/cloister-host-sealing.key")
    machine.shell("cd /root/cloister-*-worker && ./install worker --release-key ../release.pub")
    machine.ok("systemctl", "enable", "--now", "cloister-keyagent", "cloister-trainer.socket", "cloister-worker")
    assert site.finish(site.submit("again", 1)) == "SUCCEEDED"
