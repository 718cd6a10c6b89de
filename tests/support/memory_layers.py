# SPDX-License-Identifier: Apache-2.0
"""Layers of the versions of a `MemorySite`, as a host and a control plane make them."""

from __future__ import annotations

from collections.abc import Iterable

from cloister.api.v1 import common_pb2, jobs_pb2, models_pb2
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.layers import ADAPTER, DEMONSTRATIONS, MERGED_WEIGHTS, RETRIEVAL_INDEX, stacked
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, Manifest
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from set_clock import NOW

PREFIX = "LAYER_KIND_"


def stack_of(start: models_pb2.ModelVersion, manifest: Manifest, trailer: Statement) -> list[models_pb2.Layer]:
    """The layers of the version that a job on `start` makes, as the control plane computes them."""
    kind = manifest.details["layer"]
    made = models_pb2.Layer(
        kind=models_pb2.LayerKind.Value(PREFIX + kind.upper()),
        object_id=manifest.id,
        digest=manifest.details["files_sha256"],
        sealed=common_pb2.SealedObject(manifest=manifest.to_payload(), trailer=statement_to_proto(trailer)),
    )
    below = [(models_pb2.LayerKind.Name(v.kind)[len(PREFIX) :].lower(), v) for v in start.layers]
    return [layer for _, layer in stacked(below, (kind, made))]


def layer_of(files: Iterable[str]) -> str:
    """The kind of layer that these files are."""
    kinds = {
        "adapter_config.json": ADAPTER,
        "retrieval.json": RETRIEVAL_INDEX,
        "demonstrations.json": DEMONSTRATIONS,
    }
    return next((kinds[name] for name in files if name in kinds), MERGED_WEIGHTS)


def export_manifest(job: jobs_pb2.Job, files_sha256: str, layer: str) -> Manifest:
    """Of what a host exports for a job."""
    return Manifest(
        kind="export",
        id=f"e{job.id[1:]}",
        name="result",
        owner="gpu-1",
        team=job.team,
        pool="default",
        purposes=(Authorisation.parse(job.authorisation.payload).purpose,),
        media_type=BUNDLE_MEDIA_TYPE,
        created_at=NOW,
        expires_at=NOW + 10**8,
        details={"job_id": job.id, "attempt": "1", "step": "10", "files_sha256": files_sha256, "layer": layer},
    )
