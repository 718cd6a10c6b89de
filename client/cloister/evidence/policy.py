# SPDX-License-Identifier: Apache-2.0
"""Release policy: under which conditions a candidate may be sealed to a named recipient.

Signed by a policy key of the roster (compliance), bound into every job authorisation, and checked by the key
agent before it re-wraps.  `auto_release` means that no person has to approve; it must be signed like the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import ExpiredError, FormatError, PolicyError
from cloister.evidence.fields import Fields
from cloister.evidence.roster import Roster, verify_by
from cloister.evidence.signatures import SigningKey, Statement
from cloister.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY_TYPE = "application/vnd.cloister.policy+json"


@dataclass(frozen=True)
class Rule:
    """A bound on one metric of the evaluation, as decimals; at least one side is set."""

    metric: str
    at_least: str | None = None
    at_most: str | None = None

    def to_json(self) -> JSON:
        return {"metric": self.metric, "at_least": self.at_least, "at_most": self.at_most}

    @classmethod
    def read(cls, fields: Fields) -> Rule:
        rule = cls(
            metric=fields.identifier("metric"),
            at_least=fields.optional("at_least", fields.decimal),
            at_most=fields.optional("at_most", fields.decimal),
        )
        fields.finish()
        if rule.at_least is None and rule.at_most is None:
            raise FormatError(f"policy: the rule on {rule.metric} bounds nothing")
        return rule

    def check(self, metrics: Mapping[str, str]) -> None:
        """Raises PolicyError where the metric is missing, not finite or out of bounds."""
        if self.metric not in metrics:
            raise PolicyError(f"the evaluation has no {self.metric}, which the policy bounds")
        value = Decimal(metrics[self.metric])
        if not math.isfinite(value):
            raise PolicyError(f"{self.metric} is not finite")
        if self.at_least is not None and value < Decimal(self.at_least):
            raise PolicyError(f"{self.metric} is {value}, the policy wants at least {self.at_least}")
        if self.at_most is not None and value > Decimal(self.at_most):
            raise PolicyError(f"{self.metric} is {value}, the policy wants at most {self.at_most}")


@dataclass(frozen=True)
class Policy:
    """The release policy.  Times are Unix seconds."""

    id: str
    version: int
    auto_release: bool
    approvals: int
    """People other than the requester who must approve; 0 only together with auto_release."""
    rules: tuple[Rule, ...]
    allow_unsandboxed: bool
    issued_at: int
    expires_at: int
    gate: Gate | None = None
    """Bars of de-biasing jobs; None stands for the defaults of `cloister.gate`, and the field is left out."""

    def to_payload(self) -> bytes:
        gate: dict[str, JSON] = {} if self.gate is None else {"gate": self.gate.to_json()}
        return canonical_bytes(
            {
                "type": "policy",
                "v": 1,
                "id": self.id,
                "version": self.version,
                "auto_release": self.auto_release,
                "approvals": self.approvals,
                "rules": [rule.to_json() for rule in self.rules],
                "allow_unsandboxed": self.allow_unsandboxed,
                "issued_at": self.issued_at,
                "expires_at": self.expires_at,
                **gate,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Policy:
        """Raises FormatError."""
        fields = Fields.of_document("policy", payload)
        policy = cls(
            id=fields.identifier("id"),
            version=fields.integer("version", minimum=1),
            auto_release=fields.boolean("auto_release"),
            approvals=fields.integer("approvals"),
            rules=tuple(Rule.read(f) for f in fields.objects("rules")),
            allow_unsandboxed=fields.boolean("allow_unsandboxed"),
            issued_at=fields.time("issued_at"),
            expires_at=fields.time("expires_at"),
            gate=fields.unless_absent("gate", lambda name: Gate.read(fields.object(name))),
        )
        fields.finish()
        if policy.auto_release != (policy.approvals == 0):
            raise FormatError("policy: auto_release and at least one approval exclude each other")
        return policy

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(POLICY_TYPE, self.to_payload())


def verify_policy(statement: Statement, roster: Roster, *, now: int) -> Policy:
    """Raises FormatError, SignatureError, ExpiredError."""
    policy = Policy.parse(statement.payload)
    verify_by(statement, POLICY_TYPE, roster.policy_keys, "a policy key", signed_at=policy.issued_at, now=now)
    if now >= policy.expires_at:
        raise ExpiredError(f"release policy {policy.id} version {policy.version} has expired; sign a newer one")
    return policy
