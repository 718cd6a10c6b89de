# SPDX-License-Identifier: Apache-2.0
"""DatasetService."""

from __future__ import annotations

from cloister.api.v1 import datasets_pb2, datasets_pb2_grpc
from cloister_server.calls import Context, current_call
from cloister_server.pages import Page
from cloister_server.registry import datasets
from cloister_server.site import Site


class DatasetService(datasets_pb2_grpc.DatasetServiceServicer):
    """Sealed datasets of a team."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def CreateDataset(
        self, request: datasets_pb2.CreateDatasetRequest, context: Context
    ) -> datasets_pb2.CreateDatasetResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        dataset = await site.change("dataset.create", lambda tx: datasets.create(tx, call, request, roster, now))
        return datasets_pb2.CreateDatasetResponse(dataset=dataset)

    async def GetDataset(
        self, request: datasets_pb2.GetDatasetRequest, context: Context
    ) -> datasets_pb2.GetDatasetResponse:
        call = current_call()
        dataset = await self._site.record("dataset.read", lambda tx: datasets.get(tx, call, request.id))
        return datasets_pb2.GetDatasetResponse(dataset=dataset)

    async def ListDatasets(
        self, request: datasets_pb2.ListDatasetsRequest, context: Context
    ) -> datasets_pb2.ListDatasetsResponse:
        call, page = current_call(), Page.read(request.page)
        return await self._site.record("dataset.list", lambda tx: datasets.list_page(tx, call, page))

    async def DeleteDataset(
        self, request: datasets_pb2.DeleteDatasetRequest, context: Context
    ) -> datasets_pb2.DeleteDatasetResponse:
        call = current_call()
        dataset = await self._site.change("dataset.delete", lambda tx: datasets.delete(tx, call, request.id))
        return datasets_pb2.DeleteDatasetResponse(dataset=dataset)
