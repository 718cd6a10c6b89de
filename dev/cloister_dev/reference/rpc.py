# SPDX-License-Identifier: Apache-2.0
"""docs/reference/rpc.md: every service and method with its roles, every message and enum with its comments."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from cloister_dev.reference.contract import PACKAGE, Contract, read_contract
from cloister_server.policy_table import ROLES, WITH_EXPIRED_ROSTER

INTRODUCTION = """# RPC

This page is made from `protos/` and from the table of roles: `make reference`.

gRPC over mutual TLS; who calls is the certificate's name, as the roster pins it. Every unary call needs a deadline, and
a message has at most 4 MiB. A method that is not listed is denied. What a role may call, it may call for its own team's
objects: another team's are NOT_FOUND, in the same words as what does not exist. See also the [reasons of
errors](errors.md) and the [fields of a specification](spec.md).
"""
_SPEC_FILE = "cloister/api/v1/spec.proto"


def page() -> str:
    """The whole page."""
    contract = read_contract()
    services = [service for file in contract.files for service in file.service]
    parts = [INTRODUCTION, *(_service(contract, service) for service in services), "\n## Messages\n"]
    parts += [_message(contract, message) for message in _described(contract)]
    parts.append("\n## Enums\n")
    for name, enum in contract.enums().items():
        rows = "".join(f"| `{v.name}` | {v.number} | {contract.comments[f'{name}.{v.name}']} |\n" for v in enum.value)
        parts.append(
            f"\n### {enum.name}\n\n{contract.comments[name]}\n\n| value | number | meaning |\n|---|---|---|\n{rows}"
        )
    return "".join(parts)


def _service(contract: Contract, service: ServiceDescriptorProto) -> str:
    methods = "".join(_method(contract, service.name, method) for method in service.method)
    return f"\n## {service.name}\n\n{contract.comments[f'{PACKAGE}.{service.name}']}\n{methods}"


def _method(contract: Contract, service: str, method: MethodDescriptorProto) -> str:
    full = f"/{PACKAGE}.{service}/{method.name}"
    expired = " Works with an expired roster." if full in WITH_EXPIRED_ROSTER else ""
    asked = ("stream of " if method.client_streaming else "") + _link(method.input_type)
    answered = ("stream of " if method.server_streaming else "") + _link(method.output_type)
    return (
        f"\n### {service}.{method.name}\n\n{contract.comments[f'{PACKAGE}.{service}.{method.name}']}{expired}\n\n"
        f"Roles: {', '.join(sorted(ROLES[full]))}. Request: {asked}. Answer: {answered}.\n"
    )


def _described(contract: Contract) -> Iterator[DescriptorProto]:
    """Every message but the specification's, which has a page of its own."""
    yield from (message for file in contract.files if file.name != _SPEC_FILE for message in file.message_type)


def _message(contract: Contract, message: DescriptorProto) -> str:
    name = f"{PACKAGE}.{message.name}"
    text = f"\n### {message.name}\n\n{contract.comments[name]}\n"
    if not message.field:
        return text + "\nNo fields.\n"
    rows = "".join(
        f"| `{field.name}` | {field.number} | {_type(message, field)} | {contract.comments[f'{name}.{field.name}']} |\n"
        for field in message.field
    )
    return f"{text}\n| field | number | type | meaning |\n|---|---|---|---|\n{rows}"


def _type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    entry = next(
        (inner for inner in message.nested_type if field.type_name.endswith(f".{message.name}.{inner.name}")), None
    )
    if entry is not None and entry.options.map_entry:
        return f"map of {_plain(entry.field[0])} to {_plain(entry.field[1])}"
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    return repeated + _plain(field)


def _plain(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(type_name: str) -> str:
    """A link to a message or enum of this page, or of the specification's; others by their name."""
    name = type_name.removeprefix(f".{PACKAGE}.")
    if name == type_name:
        return f"`{name.removeprefix('.')}`"
    return f"[{name}](#{name.lower()})"
