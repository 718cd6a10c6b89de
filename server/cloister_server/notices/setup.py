# SPDX-License-Identifier: Apache-2.0
"""Putting together what `[notices]` asks for, and checking it before it is served."""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.configuration.settings import Problem
from cloister_server.config import Config
from cloister_server.errors import StartError
from cloister_server.notices.command import CommandTarget
from cloister_server.notices.outbox import Outbox
from cloister_server.notices.sender import Pace
from cloister_server.notices.target import Target
from cloister_server.notices.webhook import WebhookTarget, parse_secret
from cloister_server.notifier import Notifier
from cloister_server.rosters import Clock

_OTHERS_WRITE = 0o002


@dataclass(frozen=True)
class Notices:
    """What the senders of a site work with; without targets there are none."""

    outbox: Outbox
    targets: tuple[Target, ...]
    news: Notifier
    """Wakes the senders."""
    pace: Pace


def build_notices(config: Config, clock: Clock) -> Notices:
    """Raises StartError for a file that cannot be used."""
    targets: list[Target] = []
    if config.notices_command is not None:
        targets.append(CommandTarget(config.notices_command, config.notices_timeout_seconds))
    if config.notices_url is not None:
        targets.append(_webhook(config, config.notices_url, clock))
    news = Notifier()
    pace = Pace(limit=config.notices_timeout_seconds, give_up=config.notices_give_up_seconds, poll=config.sweep_seconds)
    return Notices(Outbox([target.name for target in targets], wake=news.notify), tuple(targets), news, pace)


def check_notices(config: Config, unreadable: Collection[str]) -> Iterator[Problem]:
    """What would keep notices from being delivered; files of the keys `unreadable` are told of already."""
    if config.notices_command is not None:
        yield from _check_program(Path(config.notices_command[0]))
    if config.notices_ca_file is not None and "notices.ca_file" not in unreadable:
        try:
            ssl.create_default_context(cafile=config.notices_ca_file)
        except (OSError, ssl.SSLError):
            yield Problem("notices.ca_file", f"{config.notices_ca_file}: is not a PEM certificate; copy it again")
    if config.notices_secret_file is not None and "notices.secret_file" not in unreadable:
        try:
            _secret(config.notices_secret_file)
        except (OSError, ValueError) as error:
            yield Problem("notices.secret_file", f"{config.notices_secret_file}: {error}")


def _check_program(program: Path) -> Iterator[Problem]:
    if not program.is_file() or not os.access(program, os.X_OK):
        yield Problem(
            "notices.command", f"{program} is not a program that this user may run; run: chmod 0755 {program}"
        )
    elif program.stat().st_mode & _OTHERS_WRITE:
        # It runs as the control plane's user: who changes it has that user's files.
        yield Problem("notices.command", f"{program} can be changed by everybody; run: chmod o-w {program}")


def _webhook(config: Config, url: str, clock: Clock) -> WebhookTarget:
    try:
        context = ssl.create_default_context(cafile=config.notices_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"[notices] ca_file: {config.notices_ca_file} cannot be used; run check-config") from error
    secret = None
    if config.notices_secret_file is not None:
        try:
            secret = _secret(config.notices_secret_file)
        except (OSError, ValueError) as error:
            raise StartError(
                f"[notices] secret_file: {config.notices_secret_file} cannot be used; run check-config"
            ) from error
    return WebhookTarget(url, context, secret, config.notices_timeout_seconds, clock)


def _secret(path: Path) -> bytes:
    """Raises OSError, ValueError."""
    try:
        return parse_secret(path.read_text(encoding="ascii"))
    except UnicodeDecodeError:
        return parse_secret("")
