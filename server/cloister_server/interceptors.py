# SPDX-License-Identifier: Apache-2.0
"""The gate in front of every handler.

For each call, in this order: (1) a correlation id; a control plane that is being stopped goes no further; (2) who
calls, by certificate and roster; (3) whether the table lets these roles call this method; (4) whether a unary call
has a deadline; (5) the handler; (6) an error becomes a status with its reason, and a refusal an entry in the log.  A
refusal that cannot be logged is answered with AUDIT_UNAVAILABLE.  On a stream, (2) and (3) are asked again every few
seconds.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Actor, Event, Subject
from cloister_server.blocking import Blocking
from cloister_server.calls import Call, Principal, enter_call
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.enrolment_keys import EnrolmentKeys
from cloister_server.errors import (
    DOMAIN,
    INTERNAL_TEXT,
    AuditUnavailableError,
    DatabaseUnavailableError,
    DeadlineRequiredError,
    RoleRequiredError,
    ServerError,
    StoppingError,
    UnknownIdentityError,
)
from cloister_server.identity import ENROLMENT_KIND, presented, resolve, resolve_token, transport
from cloister_server.journal import Journal
from cloister_server.metrics.recorder import Outcome, Recorder
from cloister_server.policy_table import ROLES, WITH_EXPIRED_ROSTER
from cloister_server.rechecking import finished, rechecked
from cloister_server.rosters import Clock, Rosters

# gRPC hands over handlers, requests and contexts of every method through one untyped door.
Context = Any
Handler = Any
MAX_TEXT = 400
"""Characters of a refusal; a message may quote a field that is as long as its caller likes."""
_HEALTH = "/grpc.health.v1.Health/"
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Gate(grpc.aio.ServerInterceptor):  # gRPC accepts no interceptor of another class
    """Wraps every handler of the server."""

    def __init__(
        self,
        unit_of_work: UnitOfWork,
        rosters: Rosters,
        enrolment_keys: EnrolmentKeys,
        clock: Clock,
        blocking: Blocking,
        journal: Journal,
        metrics: Recorder,
        stopping: Callable[[], bool],
    ) -> None:
        """`stopping`: whether only calls that are open already may go on."""
        self._unit_of_work = unit_of_work
        self._rosters = rosters
        self._enrolment_keys = enrolment_keys
        self._clock = clock
        self._blocking = blocking
        self._journal = journal
        self._metrics = metrics
        self._stopping = stopping

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = next(name for name in _KINDS if getattr(handler, name))
        behaviour = getattr(handler, kind)
        method = str(handler_call_details.method)
        wrapped = (
            self._answer(method, behaviour, unary=kind == "unary_unary")
            if kind.endswith("unary")
            else self._stream(method, behaviour)
        )
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _answer(self, method: str, behaviour: Handler, *, unary: bool) -> Handler:
        async def handle(request: Any, context: Context) -> object:  # noqa: ANN401  # a message, or a stream of them
            corr_id = uuid.uuid4().hex
            call: Call | None = None
            with self._metrics.call(method) as outcome:
                try:
                    call = await self._enter(method, corr_id, context)
                    _check_roles(method, call.principal)
                    _check_deadline(context, unary=unary)
                    received = rechecked(request, call.recheck) if hasattr(request, "__aiter__") else request
                    return await behaviour(received, context)
                except Exception as error:  # this is the place where every error becomes a status
                    await self._refuse(error, method, corr_id, call, context, outcome)
                    raise

        return handle

    def _stream(self, method: str, behaviour: Handler) -> Handler:
        async def handle(request: object, context: Context) -> AsyncIterator[object]:
            corr_id = uuid.uuid4().hex
            call: Call | None = None
            with self._metrics.call(method) as outcome:
                try:
                    call = await self._enter(method, corr_id, context)
                    _check_roles(method, call.principal)
                    answer = behaviour(request, context)
                    if hasattr(answer, "__aiter__"):
                        async for message in rechecked(answer, call.recheck):
                            yield message
                    else:
                        # A handler that writes to the context by itself: the health service's Watch.
                        await finished(answer, call.recheck)
                except Exception as error:
                    await self._refuse(error, method, corr_id, call, context, outcome)
                    raise

        return handle

    async def _enter(self, method: str, corr_id: str, context: Context) -> Call:
        if self._stopping() and not method.startswith(_HEALTH):
            raise StoppingError
        try:
            principal = self._principal(method, context)
        except UnknownIdentityError:
            # Somebody whom a roster brought that another control plane published since this one looked last.
            await self._blocking.run(self._rosters.refresh)
            principal = self._principal(method, context)

        async def recheck() -> None:
            again = self._principal(method, context)
            _check_roles(method, again)
            if (again.team, again.pool, again.roles) != (principal.team, principal.pool, principal.roles):
                raise UnknownIdentityError("the roster changed; call again")

        call = Call(method, corr_id, principal, recheck, Subject("method", method))
        enter_call(call)
        return call

    def _principal(self, method: str, context: Context) -> Principal:
        auth: Mapping[str, list[bytes]] = context.auth_context() or {}
        roster = self._rosters.current().roster if method in WITH_EXPIRED_ROSTER else self._rosters.valid()
        caller = presented(auth)
        if caller.kind == ENROLMENT_KIND:
            token_id = self._enrolment_keys.token_of(caller.key_sha256)
            return resolve_token(caller, roster.site, token_id, transport(auth))
        return resolve(caller, roster, transport(auth), now=self._clock())

    async def _refuse(
        self, error: Exception, method: str, corr_id: str, call: Call | None, context: Context, outcome: Outcome
    ) -> None:
        """Log the refusal and end the call with its status; returns only for an abort by the handler itself."""
        if isinstance(error, grpc.aio.AbortError):
            outcome.code = _code_name(context)
            return
        if isinstance(error, ServerError):
            shown = await self._recorded(error, method, corr_id, call, context)
        else:
            self._journal.failure("internal_error", error, method=method, corr_id=corr_id)
            shown = ServerError(INTERNAL_TEXT)
        if isinstance(shown, AuditUnavailableError | DatabaseUnavailableError):
            self._journal.failure("unavailable", shown, method=method, corr_id=corr_id)
        outcome.code = shown.code.name
        await context.abort_with_status(rpc_status.to_status(_status(shown, corr_id)))

    async def _recorded(
        self, error: ServerError, method: str, corr_id: str, call: Call | None, context: Context
    ) -> ServerError:
        """Write the entry of a refusal; the error to answer with."""
        if isinstance(error, AuditUnavailableError | DatabaseUnavailableError | StoppingError):
            return error
        try:
            if call is None:
                await self._log(_session_denied(error, method, corr_id, context))
            else:
                await self._log_refusal(error, call)
        except ServerError as unavailable:
            return unavailable
        return error

    async def _log_refusal(self, error: ServerError, call: Call) -> None:
        denied = error.code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
        action = "method.denied" if denied else "method.failed"
        outcome = "denied" if denied else "failed"
        detail: dict[str, JSON] = {
            "method": call.method,
            **{k: v for k, v in error.metadata.items() if k in ("check", "state")},
        }
        await self._log(call.event(action, call.subject, outcome=outcome, reason=error.reason, detail=detail))

    async def _log(self, event: Event) -> None:
        await self._blocking.run(self._unit_of_work.run, "refusal", lambda tx: tx.record(event))


def _code_name(context: Context) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN.name


def _check_roles(method: str, principal: Principal) -> None:
    allowed = ROLES.get(method, frozenset())
    if not allowed & principal.roles:
        raise RoleRequiredError(f"this needs the role {' or '.join(sorted(allowed)) or 'of nobody'}")


def _check_deadline(context: Context, *, unary: bool) -> None:
    if unary and context.time_remaining() is None:
        raise DeadlineRequiredError("set a deadline: every unary call needs one")


def _session_denied(error: ServerError, method: str, corr_id: str, context: Context) -> Event:
    key = ""
    try:
        key = presented(context.auth_context() or {}).key_sha256
    except UnknownIdentityError:
        key = ""  # there is no certificate to name
    return Event(
        action="session.denied",
        actor=Actor("", "unknown", key),
        object=Subject("session", "", key),
        outcome="denied",
        reason=error.reason,
        corr_id=corr_id,
        detail={"method": method},
    )


def _status(error: ServerError, corr_id: str) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={**{name: _short(value) for name, value in error.metadata.items()}, "correlation_id": corr_id},
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    code = code_pb2.Code.Value(error.code.name)
    return status_pb2.Status(code=code, message=_short(str(error)), details=[packed])


def _short(text: str) -> str:
    # A status travels in the trailers, of which a client takes 8 KiB: in place of a longer one it would get no reason.
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
