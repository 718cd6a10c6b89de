# SPDX-License-Identifier: Apache-2.0
"""Both doctors on a live site."""

from __future__ import annotations

import json

from live_site import LiveSite


def test_the_doctors_find_a_live_site_in_order(attentive_site: LiveSite) -> None:
    """Neither finds a failure while everything runs, and both say it as JSON too."""
    site = attentive_site
    server = ("cloister-server", "doctor", "--config", str(site.layout.server_config))
    worker = ("cloister-worker", "doctor", "--dir", str(site.layout.worker))
    for command in (server, worker):
        site.ok("dana", *command)
        found = json.loads(site.ok("dana", *command, "--json").out)
        assert "failure" not in {finding["level"] for finding in found}
        assert all(finding["remedy"] for finding in found if finding["level"] != "ok")


def test_the_doctor_says_that_the_key_agent_is_gone(site: LiveSite) -> None:
    """Without its key agent the worker's doctor ends with status 1 and says what to start."""
    site.stop("keyagent")
    said = site.said("dana", "cloister-worker", "doctor", "--dir", str(site.layout.worker))
    assert (1, True) == (said.status, "systemctl start cloister-keyagent" in said.out)


def test_an_admins_doctor_looks_from_afar(site: LiveSite) -> None:
    """On a live site nothing failed; with the control plane gone it says so, as a finding, with status 1."""
    found = json.loads(site.ok("dana", "cloister-admin", "doctor", "--json").out)
    assert "failure" not in {finding["level"] for finding in found}
    assert {"site", "policy", "hosts"} <= {finding["check"] for finding in found}
    site.stop("server")
    said = site.said("dana", "cloister-admin", "doctor")
    assert (1, True) == (said.status, said.out.startswith("failure  site"))
