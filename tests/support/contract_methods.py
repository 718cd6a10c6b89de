# SPDX-License-Identifier: Apache-2.0
"""Every method of the contract, from the descriptors, and a call of one by its name."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from cloister.api.v1 import (
    audit_pb2,
    blobs_pb2,
    datasets_pb2,
    enrolment_pb2,
    grants_pb2,
    identity_pb2,
    jobs_pb2,
    models_pb2,
    operations_pb2,
    workers_pb2,
)
from served_site import Caller, Refused, read_refusal

FILES = (
    audit_pb2,
    blobs_pb2,
    datasets_pb2,
    enrolment_pb2,
    grants_pb2,
    identity_pb2,
    jobs_pb2,
    models_pb2,
    operations_pb2,
    workers_pb2,
    health_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def empty_request(method: str) -> Message:
    """A request with nothing in it."""
    return GetMessageClass(METHODS[method].input_type)()


def invoke(
    caller: Caller, method: str, request: Message, *, messages: int | None = None, timeout: float = 20
) -> Refused | list[Message]:
    """Call a method by its name; what came back, of a stream the first `messages`, or all."""
    descriptor = METHODS[method]
    answer = GetMessageClass(descriptor.output_type)
    shapes: dict[tuple[bool, bool], Any] = {
        (False, False): caller.channel.unary_unary,
        (False, True): caller.channel.unary_stream,
        (True, False): caller.channel.stream_unary,
    }
    shape = shapes[(descriptor.client_streaming, descriptor.server_streaming)]
    stub = shape(method, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)
    sent = iter([request]) if descriptor.client_streaming else request
    try:
        received = stub(sent, timeout=timeout)
        if not descriptor.server_streaming:
            return [received]
        if messages is None:
            return list(received)
        first = [message for _, message in zip(range(messages), received, strict=False)]
        received.cancel()
        return first
    except grpc.RpcError as error:
        return read_refusal(error)
