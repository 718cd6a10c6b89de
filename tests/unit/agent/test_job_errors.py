# SPDX-License-Identifier: Apache-2.0
"""Every code with which an attempt can end is explained, and nothing else is."""

import re
from pathlib import Path

from cloister_workers.agent.errors import HostFault
from cloister_workers.agent.outcome import trainer_failure
from cloister_workers.messages import Failed, FailureCode

REPOSITORY = Path(__file__).parents[3]
RAISED = re.compile(r"(JobFault|HostFault)\(\s*\"([A-Z_]+)\"")


def codes() -> dict[str, bool]:
    """Code -> whether it is the host's fault, from the source and from the trainer's enumeration."""
    found: dict[str, bool] = {}
    for path in (REPOSITORY / "workers" / "cloister_workers" / "agent").glob("*.py"):
        found |= {code: kind == "HostFault" for kind, code in RAISED.findall(path.read_text(encoding="utf-8"))}
    for code in FailureCode:
        error = trainer_failure(Failed(code=code))
        found[error.code] = isinstance(error, HostFault)
    return found


def test_every_code_is_documented_under_whose_fault_it_is() -> None:
    """The page lists exactly the codes of the agent, those of the host in its second table."""
    page = (REPOSITORY / "docs" / "reference" / "job-errors.md").read_text(encoding="utf-8")
    job, host = page.split("**Handed back**")
    for part, of_host in ((job, False), (host, True)):
        documented = re.findall(r"^\| `([A-Z_]+)`", part, re.MULTILINE)
        assert documented == sorted(code for code, kind in codes().items() if kind is of_host)


def test_messages_of_the_trainers_failures_fit_the_contract() -> None:
    """Every message is printable ASCII of at most 500 characters."""
    for code in FailureCode:
        text = str(trainer_failure(Failed(code=code)))
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 500
