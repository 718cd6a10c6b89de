# SPDX-License-Identifier: Apache-2.0
"""Release policies: written by compliance as a few lines of YAML, signed with the policy key.

id: standard
version: 1
approvals: 1            # 0 releases without a person: write auto_release: true then
auto_release: false
allow_unsandboxed: false
rules:
  - {metric: accuracy, at_least: "0.80"}
gate:                   # of de-biasing jobs; what is not named here has the default of `cloister.gate`
  bars: {flip_rate: 0.01}
  margins: {accuracy: 0.02}

A rule binds without exception; the gate can be lifted for one release by an approver who signs for that.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from cloister.errors import UsageError
from cloister.evidence.errors import EvidenceError
from cloister.evidence.policy import Policy, Rule
from cloister.evidence.signatures import SigningKey, Statement
from cloister.files import create_private
from cloister.gate import Gate

_DAY = 24 * 3600
_FIELDS = {"id", "version", "approvals", "auto_release", "allow_unsandboxed", "rules", "gate"}
_GATE = {"alpha", "draws", "bars", "margins", "harm", "extrinsic", "allow_own_bars"}
_BOUNDS = {"metric", "at_least", "at_most"}
_PLAIN = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def policy_keygen(path: Path, key: SigningKey | None = None) -> SigningKey:
    """Make a policy key and store it.  Raises HomeError where the file exists."""
    made = SigningKey.generate() if key is None else key
    create_private(path, (made.export() + "\n").encode("ascii"))
    return made


def read_policy(text: str, days: int, *, now: int) -> Policy:
    """A policy from YAML (or JSON), in force for `days` days from `now`.  Raises UsageError."""
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date or number that is none
        raise UsageError("policy: it is not YAML") from None
    if not isinstance(values, dict):
        raise UsageError("policy: expected fields such as id, version and approvals")
    if unknown := sorted(str(name) for name in set(values) - _FIELDS):
        raise UsageError(f"policy: unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    try:
        policy = Policy(
            id=str(values["id"]),
            version=_integer(values.get("version", 1), "version"),
            auto_release=_boolean(values.get("auto_release", False), "auto_release"),
            approvals=_integer(values.get("approvals", 0), "approvals"),
            rules=tuple(_rule(rule) for rule in values.get("rules") or ()),
            allow_unsandboxed=_boolean(values.get("allow_unsandboxed", False), "allow_unsandboxed"),
            issued_at=now,
            expires_at=now + days * _DAY,
            gate=None if "gate" not in values else _gate(values["gate"]),
        )
        return Policy.parse(policy.to_payload())
    except KeyError as missing:
        raise UsageError(f"policy: field {missing} is missing") from None
    except EvidenceError as error:
        raise UsageError(f"policy: {error}") from None


def sign_policy(key: SigningKey, policy: Policy) -> Statement:
    """The signed policy: what `ModelService.PublishPolicy` takes."""
    return policy.sign(key)


def _gate(values: object) -> Gate:
    """The gate with every number spelled out, so that what is signed does not change with the software's defaults."""
    if not isinstance(values, dict) or set(values) - _GATE:
        raise UsageError(f"policy: a gate has the fields {', '.join(sorted(_GATE))}")
    usual = Gate()
    return Gate(
        alpha=_number(values.get("alpha", usual.alpha), "gate.alpha"),
        draws=_integer(values.get("draws", usual.draws), "gate.draws"),
        bars={**usual.bars, **_numbers(values.get("bars", {}), "gate.bars")},
        margins={**usual.margins, **_numbers(values.get("margins", {}), "gate.margins")},
        harm=_number(values.get("harm", usual.harm), "gate.harm"),
        extrinsic=_boolean(values.get("extrinsic", usual.extrinsic), "gate.extrinsic"),
        allow_own_bars=_boolean(values.get("allow_own_bars", False), "gate.allow_own_bars"),
    )


def _numbers(values: object, name: str) -> dict[str, float]:
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"policy: {name} is not a table of names and numbers")
    return {key: _number(value, f"{name}.{key}") for key, value in values.items()}


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"policy: {name} is not a number")
    return float(value)


def _rule(values: object) -> Rule:
    if not isinstance(values, dict) or set(values) - _BOUNDS or "metric" not in values:
        raise UsageError("policy: a rule has the fields metric, and at_least or at_most")
    return Rule(str(values["metric"]), _bound(values.get("at_least")), _bound(values.get("at_most")))


def _bound(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _PLAIN.fullmatch(str(value)):
        raise UsageError("policy: a bound is a plain decimal number such as 0.8")
    return str(value)


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"policy: {name} is not a whole number")
    return value


def _boolean(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"policy: {name} is not true or false")
    return value
