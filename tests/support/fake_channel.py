# SPDX-License-Identifier: Apache-2.0
"""A `grpc.Channel` that calls Python functions: the seam at which the client is tested without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

Handler = Callable[[Any], Any]  # every RPC has its own pair of messages


class Refusal(Exception):
    """What a handler raises to answer with a status; with `reason`, an ErrorInfo goes along."""

    def __init__(self, code: grpc.StatusCode, message: str = "refused", reason: str = "", **metadata: str) -> None:
        super().__init__(message)
        self.code, self.message, self.reason, self.metadata = code, message, reason, metadata


class FakeRpcError(grpc.RpcError, grpc.Call):
    """A failed call as grpc reports it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self._refusal = refusal

    def code(self) -> grpc.StatusCode:
        return self._refusal.code

    def details(self) -> str:
        return self._refusal.message

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:  # type: ignore[override]  # the stubs disagree
        if not self._refusal.reason:
            return ()
        info = error_details_pb2.ErrorInfo(
            reason=self._refusal.reason, domain="cloister", metadata=self._refusal.metadata
        )
        packed = any_pb2.Any()
        packed.Pack(info)
        status = status_pb2.Status(code=self.code().value[0], message=self.details(), details=[packed])
        return (("grpc-status-details-bin", status.SerializeToString()),)

    def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


class FakeStream:
    """A server stream that can be cancelled."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self.cancelled = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - see Handler
        try:
            return next(self._messages)
        except Refusal as refusal:
            raise FakeRpcError(refusal) from None

    def cancel(self) -> None:
        self.cancelled = True


class FakeChannel(grpc.Channel):
    """Calls `handlers[method name]`; notes every call and whether it had a deadline."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self.handlers = handlers
        self.calls: list[str] = []
        self.without_deadline: list[str] = []

    def _unary(self, method: str, *_: object, **__: object) -> Callable[..., Any]:
        name = method.rpartition("/")[2]

        def call(request: object, timeout: float | None = None, **_: object) -> object:
            self.calls.append(name)
            if timeout is None:
                self.without_deadline.append(name)
            if name not in self.handlers:
                raise FakeRpcError(Refusal(grpc.StatusCode.UNIMPLEMENTED, name))
            try:
                return self.handlers[name](request)
            except Refusal as refusal:
                raise FakeRpcError(refusal) from None

        return call

    def _stream(self, method: str, *_: object, **__: object) -> Callable[..., Any]:
        name = method.rpartition("/")[2]

        def call(request: object, timeout: float | None = None, **_: object) -> FakeStream:
            self.calls.append(name)
            return FakeStream(iter(self.handlers[name](request)))

        return call

    unary_unary = _unary  # type: ignore[assignment]  # every RPC has its own pair of messages
    stream_unary = _unary  # type: ignore[assignment]  # every RPC has its own pair of messages
    unary_stream = _stream  # type: ignore[assignment]  # every RPC has its own pair of messages
    stream_stream = _stream  # type: ignore[assignment]  # every RPC has its own pair of messages

    def subscribe(self, callback: object, try_to_connect: bool | None = False) -> None:
        """Nothing to report."""

    def unsubscribe(self, callback: object) -> None:
        """Nothing was reported."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""
