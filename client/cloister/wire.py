# SPDX-License-Identifier: Apache-2.0
"""Between the messages of the API and the documents of `cloister.evidence`.  Bytes pass through unchanged."""

from __future__ import annotations

from cloister.api.v1 import common_pb2, workers_pb2
from cloister.evidence.manifest import SealedObject
from cloister.evidence.opening import LogEvidence
from cloister.evidence.signatures import Signature, Statement


def statement_to_proto(statement: Statement) -> common_pb2.Statement:
    """The message of a statement."""
    signatures = [common_pb2.Signature(key_id=s.key_id, signature=s.signature) for s in statement.signatures]
    return common_pb2.Statement(payload_type=statement.payload_type, payload=statement.payload, signatures=signatures)


def statement_from_proto(message: common_pb2.Statement) -> Statement:
    """The statement in a message."""
    signatures = tuple(Signature(s.key_id, s.signature) for s in message.signatures)
    return Statement(message.payload_type, message.payload, signatures)


def sealed_to_proto(sealed: SealedObject) -> common_pb2.SealedObject:
    """The message of a sealed object."""
    return common_pb2.SealedObject(manifest=sealed.manifest, trailer=statement_to_proto(sealed.trailer))


def sealed_from_proto(message: common_pb2.SealedObject) -> SealedObject:
    """The sealed object in a message."""
    return SealedObject(message.manifest, statement_from_proto(message.trailer))


def evidence_from_proto(message: workers_pb2.RequestOpeningResponse) -> LogEvidence:
    """What the log says of an opening."""
    return LogEvidence(
        entry=message.entry,
        index=message.index,
        inclusion_proof=tuple(message.inclusion_proof),
        checkpoint=message.checkpoint,
        consistency_proof=tuple(message.consistency_proof),
    )
