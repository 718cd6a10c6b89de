# SPDX-License-Identifier: Apache-2.0
"""The signed spec: read once at submit, and checked for what the control plane must rely on.

The bytes are kept as they were signed.  What a method means is the trainer's business; here only form counts.
"""

from __future__ import annotations

import re

from google.protobuf import json_format

from cloister.api.v1 import spec_pb2
from cloister.evidence.authorisation import Authorisation, ObjectReference
from cloister_server.errors import EvidenceRejectedError, InvalidFieldError

MAX_SPEC_BYTES = 64 * 1024
_SUFFIX = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_PRIORITY = 100
_MAX_ATTEMPTS = 10


def read_spec(data: bytes) -> spec_pb2.JobSpec:
    """The spec of a new job.  Raises InvalidFieldError."""
    if len(data) > MAX_SPEC_BYTES:
        raise InvalidFieldError("spec", f"{len(data)} bytes are more than {MAX_SPEC_BYTES}")
    spec = parse_spec(data)
    _check_form(spec)
    return spec


def parse_spec(data: bytes) -> spec_pb2.JobSpec:
    """The spec of a stored job, whatever is asked of new ones by now.  Raises InvalidFieldError.

    JSON has several ways to say one thing (42, 42.0 and "42"; null and nothing): who wants a field reads it here.
    """
    try:
        return json_format.Parse(data, spec_pb2.JobSpec())
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise InvalidFieldError("spec", "not the JSON form of a JobSpec; update the client") from None


def _check_form(spec: spec_pb2.JobSpec) -> None:
    method = spec.method.WhichOneof("type")
    if method is None:
        raise InvalidFieldError("spec.method", "name one of those that the contract lists")
    trains = hasattr(getattr(spec.method, method), "hyperparameters")
    if trains and spec.adapter.WhichOneof("type") is None:
        raise InvalidFieldError("spec.adapter", "name one of lora, full and head")
    if not -_MAX_PRIORITY <= spec.priority <= _MAX_PRIORITY:
        raise InvalidFieldError("spec.priority", f"{spec.priority} is not between -100 and 100")
    if not 1 <= spec.max_attempts <= _MAX_ATTEMPTS:
        raise InvalidFieldError("spec.max_attempts", f"{spec.max_attempts} is not between 1 and 10")
    if spec.suffix and not _SUFFIX.fullmatch(spec.suffix):
        raise InvalidFieldError("spec.suffix", "use at most 64 of a-z, 0-9, '.', '_' and '-'")
    if len(spec.metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in spec.metadata.items()):
        raise InvalidFieldError("spec.metadata", "at most 16 pairs, key 64 and value 512 characters")
    for name in ("validation_fraction", "evaluation_fraction"):
        if not 0 <= getattr(spec.data, name) <= 0.5:
            raise InvalidFieldError(f"spec.data.{name}", "not between 0 and 0.5")
    if spec.data.max_rows < 0:
        raise InvalidFieldError("spec.data.max_rows", "is negative")


def check_binding(spec: spec_pb2.JobSpec, authorisation: Authorisation) -> None:
    """The spec and the authorisation say the same.  Raises EvidenceRejectedError."""
    pairs = (
        ("purpose", spec.purpose, authorisation.purpose),
        ("pool", spec.pool, authorisation.pool),
        ("max_attempts", spec.max_attempts, authorisation.max_attempts),
        ("training_dataset", spec.training_dataset, _id(authorisation.training)),
        ("validation_dataset", spec.validation_dataset, _id(authorisation.validation)),
        ("evaluation_dataset", spec.evaluation_dataset, _id(authorisation.evaluation)),
        ("replay_dataset", spec.replay_dataset, _id(authorisation.replay)),
        ("auxiliary_model", bool(spec.auxiliary_model), authorisation.auxiliary is not None),
    )
    for name, said, signed in pairs:
        if said != signed:
            raise EvidenceRejectedError("BINDING", f"the spec's {name} is not the one that the authorisation names")


def _id(reference: ObjectReference | None) -> str:
    return "" if reference is None else reference.id
