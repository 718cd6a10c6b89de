# SPDX-License-Identifier: Apache-2.0
"""The control plane's database of a live site, and the commands that look after it."""

from __future__ import annotations

from live_site import LiveSite, Said


def use_database(site: LiveSite, url: str) -> None:
    """Point the configuration at another database."""
    path = site.layout.server_config
    lines = [f'url = "{url}"' if line.startswith("url = ") else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def server_command(site: LiveSite, *arguments: str) -> Said:
    command, *rest = arguments
    return site.said("dana", "cloister-server", command, "--config", str(site.layout.server_config), *rest)
