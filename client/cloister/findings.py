# SPDX-License-Identifier: Apache-2.0
"""What a doctor command says: findings, each with what to do, as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from cloister.evidence.roster import CLOCK_SKEW_SECONDS

Level = Literal["ok", "warning", "failure"]
SKEW_WARN_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    message: str
    """What is so, with the value that was found."""
    remedy: str = ""
    """What to do about it; empty where all is well."""


@dataclass(frozen=True)
class Diagnosis:
    """What one check found."""

    check: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        return any(finding.level == "failure" for finding in self.findings)


class Check(Protocol):
    """One look at one thing.  It changes nothing, and reports what it cannot find out as a failure."""

    def __call__(self) -> Iterable[Finding]: ...


def ok(message: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", message)


def warning(message: str, remedy: str) -> Finding:
    """It works, and will not for long, or not as well as it should."""
    return Finding("warning", message, remedy)


def failure(message: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding("failure", message, remedy)


def as_text(diagnoses: Sequence[Diagnosis]) -> str:
    """One line for each finding, and one with an arrow for what to do."""
    lines = []
    for diagnosis in diagnoses:
        for finding in diagnosis.findings:
            lines.append(f"{finding.level:8} {diagnosis.check:12} {finding.message}")
            if finding.remedy:
                lines.append(f"{'':21} -> {finding.remedy}")
    return "".join(f"{line}\n" for line in lines)


def as_json(diagnoses: Sequence[Diagnosis]) -> str:
    """A list of {check, level, message, remedy}."""
    found = [{"check": d.check, **asdict(finding)} for d in diagnoses for finding in d.findings]
    return json.dumps(found, indent=2) + "\n"


def exit_status(diagnoses: Sequence[Diagnosis]) -> int:
    """1 where anything failed; warnings alone are 0."""
    return int(any(diagnosis.failed for diagnosis in diagnoses))


def of_expiry(what: str, left_s: float, warn_s: int, remedy: str) -> Finding:
    """How long something still holds: a failure once it has ended, a warning from `warn_s` seconds before."""
    days = left_s / 86400
    if left_s <= 0:
        return failure(f"{what} has expired", remedy)
    if left_s < warn_s:
        return warning(f"{what} expires in {days:.1f} days", remedy)
    return ok(f"{what} holds for {days:.0f} days")


def of_skew(what: str, seconds: float) -> Finding:
    """How far another clock is ahead of this host's: from five seconds a warning, a failure where signed documents
    are refused for it.
    """
    text = f"{what} is {seconds:+.1f} s from this host's"
    remedy = "synchronise both clocks (systemd-timesyncd, chrony)"
    if abs(seconds) >= CLOCK_SKEW_SECONDS:
        return failure(text, f"{remedy}: signed documents are refused")
    if abs(seconds) >= SKEW_WARN_SECONDS:
        return warning(text, remedy)
    return ok(text)
