# SPDX-License-Identifier: Apache-2.0
"""ModelService."""

from __future__ import annotations

from cloister.api.v1 import models_pb2, models_pb2_grpc
from cloister.evidence.entry import Subject
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto, statement_to_proto
from cloister_server.calls import Call, Context, current_call
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import NotFoundError
from cloister_server.pages import Page
from cloister_server.registry import policies, release_views, releases, versions
from cloister_server.site import Site


class ModelService(models_pb2_grpc.ModelServiceServicer):
    """Base models, adapted versions, release policies and releases."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def CreateModelVersion(
        self, request: models_pb2.CreateModelVersionRequest, context: Context
    ) -> models_pb2.CreateModelVersionResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        version = await site.change("model.create", lambda tx: versions.create(tx, call, request, roster, now))
        return models_pb2.CreateModelVersionResponse(version=version)

    async def GetModelVersion(
        self, request: models_pb2.GetModelVersionRequest, context: Context
    ) -> models_pb2.GetModelVersionResponse:
        call = current_call()
        version = await self._site.record("model.read", lambda tx: versions.get(tx, call, request.id))
        return models_pb2.GetModelVersionResponse(version=version)

    async def ListModelVersions(
        self, request: models_pb2.ListModelVersionsRequest, context: Context
    ) -> models_pb2.ListModelVersionsResponse:
        call, page = current_call(), Page.read(request.page)
        return await self._site.record("model.list", lambda tx: versions.list_page(tx, call, page))

    async def PublishPolicy(
        self, request: models_pb2.PublishPolicyRequest, context: Context
    ) -> models_pb2.PublishPolicyResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        statement = statement_from_proto(request.policy)
        digest = await site.change("policy.publish", lambda tx: policies.publish(tx, call, statement, roster, now))
        return models_pb2.PublishPolicyResponse(digest=digest)

    async def GetPolicy(self, request: models_pb2.GetPolicyRequest, context: Context) -> models_pb2.GetPolicyResponse:
        call = current_call()
        statement = await self._site.record("policy.read", lambda tx: _read_policy(tx, call))
        return models_pb2.GetPolicyResponse(policy=statement_to_proto(statement))

    async def CreateRelease(
        self, request: models_pb2.CreateReleaseRequest, context: Context
    ) -> models_pb2.CreateReleaseResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        release = await site.change("release.request", lambda tx: releases.create(tx, call, request, roster, now))
        return models_pb2.CreateReleaseResponse(release=release)

    async def ApproveRelease(
        self, request: models_pb2.ApproveReleaseRequest, context: Context
    ) -> models_pb2.ApproveReleaseResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        statement = statement_from_proto(request.approval)
        release = await site.change(
            "release.approve", lambda tx: releases.approve(tx, call, request.id, statement, roster, now)
        )
        return models_pb2.ApproveReleaseResponse(release=release)

    async def GetRelease(
        self, request: models_pb2.GetReleaseRequest, context: Context
    ) -> models_pb2.GetReleaseResponse:
        call = current_call()
        release = await self._site.record("release.read", lambda tx: release_views.get(tx, call, request.id))
        return models_pb2.GetReleaseResponse(release=release)

    async def ListReleases(
        self, request: models_pb2.ListReleasesRequest, context: Context
    ) -> models_pb2.ListReleasesResponse:
        call, page = current_call(), Page.read(request.page)
        return await self._site.record("release.list", lambda tx: release_views.list_page(tx, call, page))


def _read_policy(tx: Transaction, call: Call) -> Statement:
    statement = policies.in_force(tx.connection)
    if statement is None:
        raise NotFoundError("policy")
    tx.record(call.event("policy.read", Subject("policy", "", statement.digest)))
    return statement
