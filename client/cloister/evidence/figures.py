# SPDX-License-Identifier: Apache-2.0
"""Figures: what a de-biasing job measured and decided, in numbers and closed words alone.

The twin, for auditors, of the report that only the team can open.  Measures and utilities are named by their place in
the lists of the signed specification, groups by a number that the sealed report explains: nothing here names a group.
The document is not signed by itself: the result statement of the job holds its digest.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.fields import Fields

if TYPE_CHECKING:
    from cloister.evidence.authorisation import Authorisation
    from cloister.evidence.result import Result

VERDICT_METRIC = "debias_verdict"
"""The metric of a signed result that holds the gate's word: 1, 0 or -1."""
PASS, INCONCLUSIVE, FAIL = "PASS", "INCONCLUSIVE", "FAIL"
VERDICTS: Mapping[str, int] = {PASS: 1, INCONCLUSIVE: 0, FAIL: -1}
KINDS = ("measure", "utility", "job")
RULES = ("improvement", "level", "over_correction", "harm", "utility", "evidence", "changed")
NAMES = tuple(
    [f"{when}{side}" for when in ("before", "after", "change") for side in ("", "_low", "_high")]
    + ["p", "p_holm", "bar", "overlap", "left_out", "crossing"]
)
MAX_ENTRIES = 20_000
"""Figures, findings and verdicts of one document, together."""
MAX_BYTES = 3 << 20
"""Of one document: it travels in one message of the contract."""
LARGEST = 10**18
"""Larger numbers are written as this one."""
_SMALLEST = 1e-12
_DIGITS = 7
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?")


@dataclass(frozen=True)
class Figure:
    """One measure on one axis, or one utility, of one run of the mitigation; or the rows of the job as a whole."""

    run: int
    """0 is the version itself, the others show how robust it is."""
    kind: str
    index: int
    """Place in the specification's list of measures or of utilities."""
    axis: int
    """Place in the specification's list of axes; 0 for a utility."""
    group: int
    """From 1 among the groups that the report names; 0 for all of them."""
    items: int
    clusters: int
    values: Mapping[str, str]
    """By `NAMES`, decimals of `figure_text`."""

    def to_json(self) -> JSON:
        return {**self.__dict__, "values": dict(self.values)}

    @classmethod
    def read(cls, fields: Fields) -> Figure:
        figure = cls(
            run=fields.integer("run"),
            kind=fields.text("kind", choices=KINDS),
            index=fields.integer("index"),
            axis=fields.integer("axis"),
            group=fields.integer("group"),
            items=fields.integer("items"),
            clusters=fields.integer("clusters"),
            values=_values(fields.object("values")),
        )
        fields.finish()
        return figure


@dataclass(frozen=True)
class Finding:
    """What one rule of the gate says of one run."""

    run: int
    rule: str
    verdict: str
    kind: str
    index: int
    axis: int

    def to_json(self) -> JSON:
        return dict(self.__dict__)

    @classmethod
    def read(cls, fields: Fields) -> Finding:
        finding = cls(
            run=fields.integer("run"),
            rule=fields.text("rule", choices=RULES),
            verdict=fields.text("verdict", choices=VERDICTS),
            kind=fields.text("kind", choices=KINDS),
            index=fields.integer("index"),
            axis=fields.integer("axis"),
        )
        fields.finish()
        return finding


@dataclass(frozen=True)
class Figures:
    """The document."""

    job_id: str
    spec_sha256: str
    policy_sha256: str
    attempt: int
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    verdicts: tuple[str, ...]
    """The gate's word on each run, in their order; the first is that of the version."""

    @property
    def verdict(self) -> str:
        """The gate's word on the version."""
        return self.verdicts[0]

    def to_payload(self) -> bytes:
        """Raises FormatError for more than may be said."""
        payload = canonical_bytes(
            {
                "type": "figures",
                "v": 1,
                "job_id": self.job_id,
                "spec_sha256": self.spec_sha256,
                "policy_sha256": self.policy_sha256,
                "attempt": self.attempt,
                "figures": [item.to_json() for item in self.figures],
                "findings": [item.to_json() for item in self.findings],
                "verdicts": list(self.verdicts),
            }
        )
        self._check_size(len(payload))
        return payload

    @classmethod
    def parse(cls, payload: bytes) -> Figures:
        """Raises FormatError."""
        if len(payload) > MAX_BYTES:
            raise FormatError(f"figures: {len(payload)} bytes, at most {MAX_BYTES} are taken")
        fields = Fields.of_document("figures", payload)
        found = cls(
            job_id=fields.identifier("job_id"),
            spec_sha256=fields.digest("spec_sha256"),
            policy_sha256=fields.digest("policy_sha256"),
            attempt=fields.integer("attempt", minimum=1),
            figures=tuple(Figure.read(item) for item in fields.objects("figures")),
            findings=tuple(Finding.read(item) for item in fields.objects("findings")),
            verdicts=fields.texts("verdicts"),
        )
        fields.finish()
        found._check_size(len(payload))
        found._check_runs()
        return found

    def _check_size(self, size: int) -> None:
        entries = len(self.figures) + len(self.findings) + len(self.verdicts)
        if entries > MAX_ENTRIES or size > MAX_BYTES:
            raise FormatError(f"figures: {entries} entries of {size} bytes are more than a job may report")

    def _check_runs(self) -> None:
        runs = {item.run for item in self.figures} | {item.run for item in self.findings}
        if not self.verdicts or set(self.verdicts) - VERDICTS.keys() or runs - set(range(len(self.verdicts))):
            raise FormatError("figures: the verdicts are not one known word for each run")


def figure_text(value: float) -> str:
    """A number as figures carry it: at most seven significant digits, up to `LARGEST` in size.

    That is enough to hold a limit against a bar; what more a double could carry has no business here.
    Raises FormatError for infinities and NaN.
    """
    if not math.isfinite(value):
        raise FormatError("figures: a number must be finite")
    if abs(value) < _SMALLEST:
        return "0"
    rounded = Decimal(f"{max(-LARGEST, min(LARGEST, value)):.{_DIGITS}g}")
    return format(rounded.normalize(), "f")


def verdict_of(metrics: Mapping[str, str]) -> str | None:
    """The gate's word in the metrics of a signed result; None where the job was not one of de-biasing.

    Anything but the three known numbers counts as FAIL: what is not understood is not passed.
    """
    if VERDICT_METRIC not in metrics:
        return None
    said = Decimal(metrics[VERDICT_METRIC])
    return next((word for word, number in VERDICTS.items() if said == number), FAIL)


def verify_figures(payload: bytes, result: Result, authorisation: Authorisation) -> Figures:
    """Check that these are the figures that a verified result binds.  Raises FormatError, BindingError."""
    if not result.figures_sha256 or hashlib.sha256(payload).hexdigest() != result.figures_sha256:
        raise BindingError(f"job {result.job_id}: the figures are not those that host {result.host} signed for")
    found = Figures.parse(payload)
    said = (found.job_id, found.attempt, found.spec_sha256, found.policy_sha256)
    signed = (result.job_id, result.attempt, authorisation.spec_sha256, authorisation.policy_sha256)
    if said != signed or verdict_of(result.metrics) != found.verdict:
        raise BindingError(
            f"job {result.job_id}: the figures are of another job, or say something else than the result"
        )
    return found


def _values(fields: Fields) -> dict[str, str]:
    return {name: fields.matching(name, _DECIMAL, "a decimal of 18 digits") for name in fields.names(NAMES)}


def name_of(names: Sequence[str], index: int) -> str:
    """A name of a list in the signed specification, or its number where the list has none there."""
    return names[index] if 0 <= index < len(names) else f"#{index}"
