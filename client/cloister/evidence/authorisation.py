# SPDX-License-Identifier: Apache-2.0
"""Job authorisation: the member's signature without which no host opens anything for a job."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import BindingError, ExpiredError, FormatError, RosterError
from cloister.evidence.fields import Fields
from cloister.evidence.roster import CLOCK_SKEW_SECONDS, Roster, verify_by
from cloister.evidence.signatures import SigningKey, Statement

AUTHORISATION_TYPE = "application/vnd.cloister.authorisation+json"
KIND_OF_ROLE = {
    "model": "model",
    "layer": "export",
    "auxiliary": "model",
    "auxiliary_layer": "export",
    "training": "dataset",
    "validation": "dataset",
    "evaluation": "dataset",
    "replay": "dataset",
}
"""What an input in each role must be: the kind of its manifest."""


@dataclass(frozen=True)
class ObjectReference:
    """A sealed object, named by its id and by the digest of its signed trailer."""

    id: str
    trailer_sha256: str

    def to_json(self) -> JSON:
        return {"id": self.id, "trailer_sha256": self.trailer_sha256}

    @classmethod
    def read(cls, fields: Fields) -> ObjectReference:
        reference = cls(fields.identifier("id"), fields.digest("trailer_sha256"))
        fields.finish()
        return reference


def _maybe(reference: ObjectReference | None) -> JSON:
    return None if reference is None else reference.to_json()


def _some(fields: Fields, name: str) -> tuple[ObjectReference, ...]:
    """At least one, so that none has one form: the field is left out."""
    found = tuple(ObjectReference.read(item) for item in fields.objects(name))
    if not found:
        raise FormatError(f"authorisation: field {name!r} is empty; leave it out")
    return found


@dataclass(frozen=True)
class Authorisation:
    """What a member allows, once: this spec, these inputs, this policy.  Times are Unix seconds."""

    job_id: str
    member: str
    team: str
    purpose: str
    pool: str
    spec_sha256: str
    policy_sha256: str
    model: ObjectReference
    model_layers: tuple[ObjectReference, ...]
    training: ObjectReference | None
    """None where nothing is learnt: the rows are then those of `evaluation`."""
    validation: ObjectReference | None
    evaluation: ObjectReference | None
    max_attempts: int
    created_at: int
    expires_at: int
    replay: ObjectReference | None = None
    """Dataset of earlier rows; left out where there is none, as the two below."""
    auxiliary: ObjectReference | None = None
    """Base of the second model."""
    auxiliary_layers: tuple[ObjectReference, ...] = ()
    """The weights of the second model, where it is an adapted version."""

    def places(self) -> tuple[tuple[str, ObjectReference], ...]:
        """Role and reference of everything that the job opens, in a fixed order."""
        found: list[tuple[str, ObjectReference | None]] = [
            ("model", self.model),
            *(("layer", layer) for layer in self.model_layers),
            ("auxiliary", self.auxiliary),
            *(("auxiliary_layer", layer) for layer in self.auxiliary_layers),
            ("training", self.training),
            ("validation", self.validation),
            ("evaluation", self.evaluation),
            ("replay", self.replay),
        ]
        return tuple((role, reference) for role, reference in found if reference is not None)

    def inputs(self) -> tuple[ObjectReference, ...]:
        """Everything that the job opens, in the order of `places`."""
        return tuple(reference for _, reference in self.places())

    def input_kinds(self) -> tuple[str, ...]:
        """What each of `inputs` must be: the kind of its manifest."""
        return tuple(KIND_OF_ROLE[role] for role, _ in self.places())

    def to_payload(self) -> bytes:
        later = {
            "replay": _maybe(self.replay),
            "auxiliary": _maybe(self.auxiliary),
            "auxiliary_layers": [layer.to_json() for layer in self.auxiliary_layers],
        }
        return canonical_bytes(
            {
                "type": "authorisation",
                "v": 1,
                "job_id": self.job_id,
                "member": self.member,
                "team": self.team,
                "purpose": self.purpose,
                "pool": self.pool,
                "spec_sha256": self.spec_sha256,
                "policy_sha256": self.policy_sha256,
                "model": self.model.to_json(),
                "model_layers": [layer.to_json() for layer in self.model_layers],
                "training": _maybe(self.training),
                "validation": _maybe(self.validation),
                "evaluation": _maybe(self.evaluation),
                "max_attempts": self.max_attempts,
                "created_at": self.created_at,
                "expires_at": self.expires_at,
                **{name: value for name, value in later.items() if value},
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Authorisation:
        """Raises FormatError."""
        fields = Fields.of_document("authorisation", payload)

        def reference(name: str) -> ObjectReference:
            return ObjectReference.read(fields.object(name))

        authorisation = cls(
            job_id=fields.identifier("job_id"),
            member=fields.identifier("member"),
            team=fields.identifier("team"),
            purpose=fields.text("purpose"),
            pool=fields.identifier("pool"),
            spec_sha256=fields.digest("spec_sha256"),
            policy_sha256=fields.digest("policy_sha256"),
            model=reference("model"),
            model_layers=tuple(ObjectReference.read(f) for f in fields.objects("model_layers")),
            training=fields.optional("training", reference),
            validation=fields.optional("validation", reference),
            evaluation=fields.optional("evaluation", reference),
            max_attempts=fields.integer("max_attempts", minimum=1),
            created_at=fields.time("created_at"),
            expires_at=fields.time("expires_at"),
            replay=fields.unless_absent("replay", reference),
            auxiliary=fields.unless_absent("auxiliary", reference),
            auxiliary_layers=fields.unless_absent("auxiliary_layers", lambda name: _some(fields, name)) or (),
        )
        fields.finish()
        authorisation._check_whole()
        return authorisation

    def _check_whole(self) -> None:
        if self.training is None and self.evaluation is None:
            raise FormatError("authorisation: neither training nor evaluation rows are named")
        if self.auxiliary is None and self.auxiliary_layers:
            raise FormatError("authorisation: layers of a second model are named, but no second model")

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(AUTHORISATION_TYPE, self.to_payload())


def verify_authorisation_signature(statement: Statement, roster: Roster, *, now: int) -> Authorisation:
    """Check that a member of the roster signed it, whether or not it is still in force.

    Raises FormatError, SignatureError, RosterError, ExpiredError (signed in the future).
    """
    authorisation = Authorisation.parse(statement.payload)
    member = roster.person(authorisation.member)
    who = f"member {member.id}"
    verify_by(statement, AUTHORISATION_TYPE, member.signing_keys, who, signed_at=authorisation.created_at, now=now)
    if "member" not in member.roles or member.team != authorisation.team:
        raise RosterError(f"{member.id} may not start jobs for team {authorisation.team}")
    return authorisation


def verify_authorisation(statement: Statement, spec: bytes, roster: Roster, *, now: int) -> Authorisation:
    """Check that a member of the roster signed this very spec and that the authorisation is in force.

    Raises FormatError, SignatureError, RosterError, ExpiredError, BindingError.
    """
    authorisation = verify_authorisation_signature(statement, roster, now=now)
    if now >= authorisation.expires_at + CLOCK_SKEW_SECONDS:
        raise ExpiredError(f"the authorisation of job {authorisation.job_id} has expired; submit the job again")
    if hashlib.sha256(spec).hexdigest() != authorisation.spec_sha256:
        raise BindingError(
            f"job {authorisation.job_id}: the specification is not the one that {authorisation.member} signed"
        )
    return authorisation
