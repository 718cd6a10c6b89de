# SPDX-License-Identifier: Apache-2.0
"""The contract with its comments: the descriptors that protoc makes of protos/, which the stubs leave out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

from cloister_dev.errors import DevError

PROTOS = Path(__file__).parents[3] / "protos"
PACKAGE = "cloister.api.v1"


@dataclass(frozen=True)
class Contract:
    """Every file, and the comment of everything in it."""

    files: tuple[FileDescriptorProto, ...]
    comments: dict[str, str]
    """Full name (`package.Message.field`, `package.Service.Method`, `package.Enum.VALUE`) to comment, in one line."""

    def messages(self) -> dict[str, DescriptorProto]:
        """Top-level messages by full name."""
        return {f"{PACKAGE}.{message.name}": message for file in self.files for message in file.message_type}

    def enums(self) -> dict[str, EnumDescriptorProto]:
        """Enums by full name."""
        return {f"{PACKAGE}.{enum.name}": enum for file in self.files for enum in file.enum_type}


def read_contract(protos: Path = PROTOS) -> Contract:
    """Compile protos/.  Raises DevError where there is none, or where it does not compile."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # a tool of the extra `dev`

    sources = sorted((protos / "cloister" / "api" / "v1").glob("*.proto"))
    if not sources:
        raise DevError(f"{protos}: no contract there; run it from a checkout of the repository")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "contract"
        include = files("grpc_tools") / "_proto"
        arguments = [
            "protoc",
            f"-I{protos}",
            f"-I{include}",
            "--include_source_info",
            f"--descriptor_set_out={compiled}",
        ]
        if protoc.main([*arguments, *map(str, sources)]) != 0:
            raise DevError(f"{protos}: the contract does not compile; protoc says why above")
        found = FileDescriptorSet.FromString(compiled.read_bytes()).file
    comments = {name: text for file in found for name, text in _comments(file)}
    return Contract(tuple(found), comments)


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        name = _name(file, list(location.path))
        if name and location.leading_comments:
            yield f"{file.package}.{name}", " ".join(location.leading_comments.split())


def _name(file: FileDescriptorProto, path: list[int]) -> str:
    """Of a service, message, enum, or of what is directly in one; empty for anything else."""
    match path:
        case [4, message]:
            return file.message_type[message].name
        case [4, message, 2, field]:
            return f"{file.message_type[message].name}.{file.message_type[message].field[field].name}"
        case [5, enum]:
            return file.enum_type[enum].name
        case [5, enum, 2, value]:
            return f"{file.enum_type[enum].name}.{file.enum_type[enum].value[value].name}"
        case [6, service]:
            return file.service[service].name
        case [6, service, 2, method]:
            return f"{file.service[service].name}.{file.service[service].method[method].name}"
    return ""
