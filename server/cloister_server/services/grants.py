# SPDX-License-Identifier: Apache-2.0
"""GrantService."""

from __future__ import annotations

from cloister.api.v1 import grants_pb2, grants_pb2_grpc
from cloister_server.calls import Context, current_call
from cloister_server.registry import grants
from cloister_server.site import Site


class GrantService(grants_pb2_grpc.GrantServiceServicer):
    """Wraps of a team's datasets and base models."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def GetWrap(self, request: grants_pb2.GetWrapRequest, context: Context) -> grants_pb2.GetWrapResponse:
        call, key_id = current_call(), request.recipient_key_id
        return await self._site.record("wrap.read", lambda tx: grants.get(tx, call, request.object_id, key_id))

    async def AddWraps(self, request: grants_pb2.AddWrapsRequest, context: Context) -> grants_pb2.AddWrapsResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        held = await site.change(
            "wrap.add", lambda tx: grants.add(tx, call, request.object_id, request.wraps, roster, now)
        )
        return grants_pb2.AddWrapsResponse(recipient_key_ids=held)
