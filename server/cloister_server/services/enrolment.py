# SPDX-License-Identifier: Apache-2.0
"""EnrolmentService."""

from __future__ import annotations

from cloister.api.v1 import enrolment_pb2, enrolment_pb2_grpc
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto, statement_to_proto
from cloister_server.calls import Context, current_call
from cloister_server.registry import tokens
from cloister_server.site import Site


class EnrolmentService(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """One-time enrolment tokens."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def CreateToken(
        self, request: enrolment_pb2.CreateTokenRequest, context: Context
    ) -> enrolment_pb2.CreateTokenResponse:
        call, site = current_call(), self._site
        roster, now, statement = site.rosters.valid(), site.clock(), statement_from_proto(request.token)
        pem = request.certificate_pem
        row = await site.change("token.create", lambda tx: tokens.create(tx, call, statement, pem, roster, now))
        await site.blocking.run(site.enrolment_keys.refresh)
        return enrolment_pb2.CreateTokenResponse(token=tokens.message(row))

    async def ListTokens(
        self, request: enrolment_pb2.ListTokensRequest, context: Context
    ) -> enrolment_pb2.ListTokensResponse:
        call, now = current_call(), self._site.clock()
        rows = await self._site.record("token.list", lambda tx: tokens.list_known(tx, call, now))
        return enrolment_pb2.ListTokensResponse(tokens=[tokens.message(row) for row in rows])

    async def WithdrawToken(
        self, request: enrolment_pb2.WithdrawTokenRequest, context: Context
    ) -> enrolment_pb2.WithdrawTokenResponse:
        call, site = current_call(), self._site
        row = await site.change("token.withdraw", lambda tx: tokens.withdraw(tx, call, request.id))
        await site.blocking.run(site.enrolment_keys.refresh)
        return enrolment_pb2.WithdrawTokenResponse(token=tokens.message(row))

    async def AdmitClaim(
        self, request: enrolment_pb2.AdmitClaimRequest, context: Context
    ) -> enrolment_pb2.AdmitClaimResponse:
        call, site = current_call(), self._site
        roster, root, statement = site.rosters.valid(), site.rosters.root_public, statement_from_proto(request.welcome)
        row = await site.change("token.admit", lambda tx: tokens.admit(tx, call, statement, root, roster))
        return enrolment_pb2.AdmitClaimResponse(token=tokens.message(row))

    async def ClaimToken(
        self, request: enrolment_pb2.ClaimTokenRequest, context: Context
    ) -> enrolment_pb2.ClaimTokenResponse:
        call, site, now = current_call(), self._site, self._site.clock()
        statement = statement_from_proto(request.claim)
        row = await site.change("token.claim", lambda tx: tokens.claim(tx, call, statement, now))
        if row.state != tokens.ADMITTED:
            return enrolment_pb2.ClaimTokenResponse(state=enrolment_pb2.TOKEN_STATE_CLAIMED)
        return enrolment_pb2.ClaimTokenResponse(
            state=enrolment_pb2.TOKEN_STATE_ADMITTED,
            welcome=statement_to_proto(Statement.from_bytes(row.welcome)),
            roster=statement_to_proto(site.rosters.current().statement),
        )
