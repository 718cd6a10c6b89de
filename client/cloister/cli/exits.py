# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the one place where an exception becomes a line on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import click

EXIT_CODES = {
    0: "success",
    1: "a rule or a state of the site forbids it, or an unforeseen failure",
    2: "wrong usage: an argument, a file, a specification, or the home directory",
    3: "the control plane cannot be reached, or cannot answer now",
    4: "no such object, or one of another team",
    5: "the roles of this person do not allow it, or the certificate is not known",
    6: "evidence was refused: the site, or the site's view of a document, is not what signatures prove",
    7: "the watched job ended without a result",
    8: "a sealed file is damaged, or not sealed to this key",
    10: "audit verify: an entry was changed, or the export is malformed",
    11: "audit verify: entries are missing",
    12: "audit verify: fork, two histories that cannot both be true",
    13: "audit verify: a signature does not verify",
    15: "audit verify: rollback, the log is shorter than what was seen before",
    130: "interrupted",
}
EVIDENCE = 6
SEALED = 8
INTERRUPTED = 130


def exit_code_of(error: Exception) -> int | None:
    """The code for one of our own errors; None for others."""
    from cloister.errors import CloisterError
    from cloister.evidence.errors import EvidenceError
    from cloister.sealed.errors import SealedError

    if isinstance(error, CloisterError):
        return error.exit_code
    if isinstance(error, EvidenceError):
        return EVIDENCE
    return SEALED if isinstance(error, SealedError) else None


def run(program: str, command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; every error is one line on stderr."""
    try:
        result = command.main(
            args=None if arguments is None else list(arguments), prog_name=program, standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        click.echo(help_wanted.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else program
        return _fail(program, f"{error.format_message().rstrip('.')}; see: {where} --help", 2)
    except click.ClickException as error:
        return _fail(program, error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail(program, "interrupted; run the same command again to go on", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away: nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        code = exit_code_of(error)
        if code is None and os.environ.get("CLOISTER_DEBUG"):
            raise
        return _fail(program, _describe(error, code), 1 if code is None else code)


def _describe(error: Exception, code: int | None) -> str:
    if code is not None:
        return str(error)
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{(error.strerror or type(error).__name__).lower()}; check the path and its permissions"
    return f"unforeseen {type(error).__name__}; run it with CLOISTER_DEBUG=1 and report what it prints"


def _fail(program: str, message: str, code: int) -> int:
    line = " ".join(message.split())
    click.echo(f"{program}: {line}", err=True)
    return code


def evidence_exit(check: Callable[[], None]) -> None:
    """Run a check of the log; a refusal exits with the code of its kind (`cloister.evidence.log.EXIT_CODES`)."""
    from cloister.evidence.errors import EvidenceError
    from cloister.evidence.log import EXIT_CODES as BY_REASON

    try:
        check()
    except EvidenceError as error:
        click.echo(f"cloister: the log does not verify ({error.reason}): {error}", err=True)
        raise click.exceptions.Exit(BY_REASON.get(error.reason, EVIDENCE)) from None
