# SPDX-License-Identifier: Apache-2.0
"""Maintenance over real mTLS: uploads of people wait, results of running jobs arrive."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cloister.api.v1 import operations_pb2, workers_pb2
from cloister_server.journal import Journal
from served_site import Founded, ServedSite, refusal, served, sqlite_url
from site_objects import (
    artifact,
    artifact_request,
    create_dataset,
    owned,
    policy,
    publish_policy,
    push_dataset,
    push_model,
    sign_job,
    success,
    upload,
)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[ServedSite]:
    with served(Founded(tmp_path), sqlite_url(tmp_path), Journal(io.StringIO())) as site:
        yield site


def operations(live: ServedSite, name: str):
    from cloister.api.v1 import operations_pb2_grpc

    return operations_pb2_grpc.OperationsServiceStub(live.caller(name).channel)


def test_uploads_of_people_wait_and_results_arrive(live: ServedSite) -> None:
    """A dataset that was registered before is not filled under maintenance; a running job ends with its result."""
    digest = publish_policy(live, policy(live.founded))
    signed = sign_job(live.founded, "alice", push_dataset(live, "alice"), push_model(live, "alice"), digest)
    live.caller("alice").jobs.CreateJob(signed.request(), timeout=30)
    host = live.caller("host-1")
    host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30)
    begun = owned(live.founded, "alice")
    create_dataset(live.caller("alice"), begun)

    operations(live, "dana").BeginMaintenance(operations_pb2.BeginMaintenanceRequest(reason="disks"), timeout=30)
    refused = refusal(lambda: upload(live.caller("alice"), begun))
    assert (grpc.StatusCode.FAILED_PRECONDITION, "MAINTENANCE") == (refused.code, refused.reason)
    made, result = artifact(live.founded, "host-1", signed, 1, "export")
    host.workers.CreateArtifact(artifact_request(signed, 1, made, result), timeout=30)
    assert upload(host, made, attempt=1).complete
    host.workers.FinishJob(success(signed, 1, made), timeout=30)

    operations(live, "dana").EndMaintenance(operations_pb2.EndMaintenanceRequest(), timeout=30)
    assert upload(live.caller("alice"), begun).complete


def test_a_host_that_asks_for_work_is_in_the_inventory(live: ServedSite) -> None:
    """LeaseWork leaves what the host said; the list has an entry in the log."""
    request = workers_pb2.LeaseWorkRequest(gpus=4, worker_version="1.2", sandboxed=False)
    live.caller("host-1").workers.LeaseWork(request, timeout=30)
    answer = operations(live, "dana").ListWorkers(operations_pb2.ListWorkersRequest(), timeout=30)
    found = {worker.host: worker for worker in answer.workers}
    assert (4, "1.2", False) == (found["host-1"].gpus, found["host-1"].version, found["host-1"].sandboxed)
    assert found["host-1"].HasField("sandboxed")
    assert 1 == len(live.entries(action="worker.list"))
