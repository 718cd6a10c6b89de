# SPDX-License-Identifier: Apache-2.0
"""IdentityService."""

from __future__ import annotations

from cloister.api.v1 import identity_pb2, identity_pb2_grpc
from cloister.evidence.entry import Subject
from cloister.wire import statement_from_proto, statement_to_proto
from cloister_server import __version__
from cloister_server.calls import Context, current_call
from cloister_server.issuing import certificate_sha256
from cloister_server.site import Site

ENVELOPE_VERSIONS = (1,)


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    """Who is who."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def GetSite(self, request: identity_pb2.GetSiteRequest, context: Context) -> identity_pb2.GetSiteResponse:
        call, site = current_call(), self._site
        in_force = await site.blocking.run(site.rosters.newest)
        subject = Subject("roster", in_force.roster.site, in_force.statement.digest)
        await site.record("site.read", lambda tx: tx.record(call.event("site.read", subject)))
        _, note = await site.blocking.run(site.heads.latest)
        return identity_pb2.GetSiteResponse(
            server_version=__version__,
            minimum_client_version=in_force.roster.minimum_client_version,
            envelope_versions=ENVELOPE_VERSIONS,
            roster=statement_to_proto(in_force.statement),
            checkpoint=note,
        )

    async def WhoAmI(self, request: identity_pb2.WhoAmIRequest, context: Context) -> identity_pb2.WhoAmIResponse:
        call = current_call()
        caller = call.principal
        subject = Subject("session", caller.id, caller.cert_sha256)
        await self._site.record("site.read", lambda tx: tx.record(call.event("site.read", subject)))
        answer = identity_pb2.WhoAmIResponse(
            id=caller.id, team=caller.team, roles=sorted(caller.roles), transport=caller.transport
        )
        answer.server_time.FromSeconds(self._site.clock())
        return answer

    async def RenewCertificate(
        self, request: identity_pb2.RenewCertificateRequest, context: Context
    ) -> identity_pb2.RenewCertificateResponse:
        call, site = current_call(), self._site
        caller = call.principal
        call.about("certificate", caller.id)
        pem = site.issuer.renew(caller, site.rosters.valid(), request.csr_pem, now=site.clock())
        subject = Subject("certificate", caller.id, certificate_sha256(pem))
        await site.record("certificate.renew", lambda tx: tx.record(call.event("certificate.renew", subject)))
        return identity_pb2.RenewCertificateResponse(certificate_pem=pem)

    async def PublishRoster(
        self, request: identity_pb2.PublishRosterRequest, context: Context
    ) -> identity_pb2.PublishRosterResponse:
        call, site = current_call(), self._site
        call.about("roster", site.config.site)
        statement = statement_from_proto(request.roster)
        version = await site.blocking.run(site.rosters.publish, call, statement)
        return identity_pb2.PublishRosterResponse(version=version)
