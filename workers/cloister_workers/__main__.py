# SPDX-License-Identifier: Apache-2.0
"""The command `cloister-worker`."""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

from cloister.errors import CloisterError
from cloister.evidence.errors import EvidenceError
from cloister.sealed.errors import SealedError
from cloister_workers.errors import WorkerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    os.umask(0o077)
    try:
        return int(options.run(options))
    except (WorkerError, CloisterError, EvidenceError, SealedError) as error:
        sys.stderr.write(f"cloister-worker: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"cloister-worker: {error.filename or 'system'}: {error.strerror}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    made = argparse.ArgumentParser(prog="cloister-worker", description="A worker host of a Cloister site.")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    _add_joining(commands)
    keyagent = commands.add_parser("keyagent", help="run the key agent")
    keyagent.add_argument("--dir", type=Path, required=True)
    keyagent.add_argument("--agent-user", type=_user, help="user of the agent, name or number; this user when absent")
    keyagent.add_argument("--socket-group", type=_group, help="group that may open the socket; for two users")
    keyagent.set_defaults(run=_keyagent)
    agent = commands.add_parser("agent", help="run the agent")
    agent.add_argument("--dir", type=Path, required=True)
    agent.add_argument("--endpoint", help="HOST:PORT of the control plane instead of the welcome file's")
    agent.add_argument("--trainer-socket", type=Path, help="where systemd makes a sandbox for each trainer")
    agent.add_argument("--once", action="store_true", help="end after one piece of work")
    agent.set_defaults(run=_agent)
    selftest = commands.add_parser("selftest", help="say whether this host can work")
    selftest.add_argument("--dir", type=Path, required=True)
    selftest.add_argument("--trainer-socket", type=Path, help="as for the agent")
    selftest.set_defaults(run=_selftest)
    doctor = commands.add_parser("doctor", help="find what is wrong with this host and say what to do")
    doctor.add_argument("--dir", type=Path, required=True)
    doctor.add_argument("--trainer-socket", type=Path, help="as for the agent")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)
    trainer = commands.add_parser("trainer", help="run one trainer for the connection that systemd hands over")
    trainer.set_defaults(run=_trainer)
    check = commands.add_parser("check-config", help="say everything that is wrong with the host's files")
    check.add_argument("--dir", type=Path, required=True)
    check.set_defaults(run=_check_config)
    return made


def _add_joining(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = commands.add_parser("init", help="make keys and DIR/request.json for the root custodian")
    init.add_argument("dir", type=Path, metavar="DIR")
    init.set_defaults(run=_init)
    install = commands.add_parser("install", help="install what the root custodian answered")
    install.add_argument("dir", type=Path, metavar="DIR")
    install.add_argument("welcome", type=Path, metavar="WELCOME.json")
    install.set_defaults(run=_install)
    enroll = commands.add_parser("enroll", help="join a site with a one-time token of an admin")
    enroll.add_argument("dir", type=Path, metavar="DIR")
    enroll.add_argument("--server", required=True, metavar="HOST:PORT", help="control plane")
    enroll.add_argument("--token", required=True, help="one-time enrolment token; - reads it from stdin")
    enroll.add_argument("--wait", action="store_true", help="wait until the root custodian has answered")
    enroll.set_defaults(run=_enroll)


# Each command imports what it needs: the key agent must never load gRPC, and only the trainer loads torch.
def _init(options: argparse.Namespace) -> int:
    from cloister_workers.init import REQUEST, init_host

    init_host(options.dir)
    sys.stdout.write(f"{options.dir / REQUEST}\n")
    return 0


def _install(options: argparse.Namespace) -> int:
    from cloister.enrolment import Welcome
    from cloister_workers.init import install_welcome

    install_welcome(options.dir, Welcome.from_json(options.welcome.read_bytes()))
    return 0


def _enroll(options: argparse.Namespace) -> int:
    from cloister_workers.enrolling import run

    return run(options.dir, options.server, options.token, wait=options.wait)


def _keyagent(options: argparse.Namespace) -> int:
    from cloister_workers.config import HostPaths
    from cloister_workers.keyagent.process import run
    from cloister_workers.keyagent.server import Access

    uid = os.getuid() if options.agent_user is None else options.agent_user
    run(HostPaths(options.dir).keyagent, Access(frozenset({uid}), options.socket_group))
    return 0


def _agent(options: argparse.Namespace) -> int:
    from cloister_workers.agent.process import run

    return run(options.dir, options.endpoint, options.trainer_socket, once=options.once)


def _selftest(options: argparse.Namespace) -> int:
    from cloister_workers.selftest import run

    return run(options.dir, options.trainer_socket)


def _doctor(options: argparse.Namespace) -> int:
    from cloister_workers.doctor import run

    return run(options.dir, options.trainer_socket, as_json_text=options.json)


def _trainer(_: argparse.Namespace) -> int:
    from cloister_workers.sandbox.instance import main

    return main()


def _user(text: str) -> int:
    try:
        return int(text) if text.isdigit() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user {text}; systemd-sysusers makes it") from None


def _group(text: str) -> int:
    try:
        return int(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group {text}; systemd-sysusers makes it") from None


def _check_config(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from cloister_workers.checking import run

    return run(options.dir, datetime.now(UTC))


if __name__ == "__main__":
    sys.exit(main())
