# SPDX-License-Identifier: Apache-2.0
"""What a job would be: its resolved specification, what it takes, and for a de-biasing job what its gate asks for.

Reads names, manifests and the policy from the site; signs nothing and sends nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloister.api.v1 import spec_pb2
from cloister.debias import MEASURES, MITIGATIONS, UTILITIES, unwatched
from cloister.errors import UsageError
from cloister.estimates import Estimate, estimate
from cloister.evidence.errors import FormatError
from cloister.evidence.manifest import VerifiedObject
from cloister.evidence.policy import Policy
from cloister.gate import Gate
from cloister.lineage import Start
from cloister.reach import remarks_of_reach, takes_any
from cloister.replay import replay_remarks
from cloister.sizes import Need, needed
from cloister.spec import Spec

PLAIN_STAGES = ("validate", "evaluate", "train", "evaluate", "seal", "publish")
REPORT_STAGES = {
    "evaluation": ("validate", "evaluate", "seal", "publish"),
    "inference": ("validate", "infer", "seal", "publish"),
}
DEBIAS_STAGES = ("validate", "evaluate", "mitigate", "evaluate", "judge", "seal", "publish")


@dataclass(frozen=True)
class Limit:
    """The bar of a measure, or the margin of a utility."""

    name: str
    role: str
    """primary, measure or utility."""
    limit: float | None
    """In force for this job; None where nothing is judged."""
    policy: float | None
    """What the signed policy allows at most; None where it says nothing."""
    need: Need | None


@dataclass(frozen=True)
class DryRun:
    """What would be signed, and what it would ask for."""

    spec: Spec
    start: Start
    data: Mapping[str, VerifiedObject]
    """training, validation, evaluation, replay, where named."""
    policy: Policy
    gate: Gate | None
    """Of a de-biasing job, with the specification's own bars."""
    limits: tuple[Limit, ...]
    stages: tuple[str, ...]
    remarks: tuple[str, ...]
    """What the specification leaves open, in words."""
    auxiliary: Start | None = None
    """The second model, where one is named."""
    estimate: Estimate | None = None
    """Of a job that trains in the loop."""


def gate_of(spec: Spec, policy: Policy) -> Gate | None:
    """The gate of a de-biasing job: the policy's with the bars that the specification tightens.

    Raises UsageError for a bar above the policy's, or of a name that the policy lacks.
    """
    if spec.method.WhichOneof("type") != "debias":
        return None
    wanted = spec.method.debias
    try:
        return (policy.gate or Gate()).tightened(dict(wanted.bars), dict(wanted.margins))
    except (ValueError, FormatError) as error:
        raise UsageError(f"spec: bars or margins: {error}") from None


def plan(
    spec: Spec, start: Start, data: Mapping[str, VerifiedObject], policy: Policy, auxiliary: Start | None = None
) -> DryRun:
    """What a resolved specification asks for under the policy in force.  Raises UsageError."""
    gate = gate_of(spec, policy)
    if gate is None:
        stages = REPORT_STAGES.get(str(spec.method.WhichOneof("type")), PLAIN_STAGES)
        takes = estimate(spec, start, data, auxiliary)
        remarks = tuple(replay_remarks(spec, start))
        return DryRun(spec, start, data, policy, None, (), stages, remarks, auxiliary, takes)
    wanted = spec.method.debias
    limits = tuple(_limits(wanted, gate, policy.gate or Gate()))
    return DryRun(spec, start, data, policy, gate, limits, DEBIAS_STAGES, tuple(_remarks(wanted, gate)), auxiliary)


def _limits(wanted: spec_pb2.Debias, gate: Gate, allowed: Gate) -> Iterable[Limit]:
    for name in wanted.measures:
        limit, guards = gate.bars.get(name), name not in wanted.primary
        largest = limit and limit * (gate.harm if guards else 1.0)
        need = needed(name, largest, gate.alpha, guards=guards) if largest else None
        yield Limit(name, "measure" if guards else "primary", limit, allowed.bars.get(name), need)
    for name in wanted.utilities:
        limit = gate.margins.get(name)
        # A margin of 0 can be met, but no number of items shows it; the same goes for no harm at all.
        need = needed(name, limit, gate.alpha) if limit else None
        yield Limit(name, "utility", limit, allowed.margins.get(name), need)


def _remarks(wanted: spec_pb2.Debias, gate: Gate) -> Iterable[str]:
    barred = [name for name in wanted.measures if name in gate.bars]
    taken = [name for name in barred if takes_any(name, wanted)]
    if gate.extrinsic and all(name in MEASURES and not MEASURES[name].extrinsic for name in taken):
        yield "the policy asks for a measure on the task itself that has a bar, and none of these is: it cannot PASS"
    for name in wanted.primary:
        if name not in gate.bars:
            yield f"primary measure {name} has no bar in the policy: the gate cannot PASS"
    yield from remarks_of_reach(wanted, gate)
    for name in wanted.utilities:
        if name not in gate.margins:
            yield f"utility {name} has no margin: it is reported, and nothing is judged by it"
    stray = [n for n in wanted.measures if n not in MEASURES] + [n for n in wanted.utilities if n not in UTILITIES]
    if wanted.mitigation.name not in MITIGATIONS:
        stray.append(wanted.mitigation.name)
    for name in stray:
        yield f"{name} is not built in: the hosts of the pool must have it, or the job fails"
    if others := unwatched(wanted):
        yield f"not watched: {', '.join(others)}; name under guard_axes what must not get worse"
    known_mitigation = MITIGATIONS.get(wanted.mitigation.name)
    if known_mitigation is not None and not known_mitigation.trained and wanted.seeds > 1:
        yield f"seeds is {wanted.seeds}, but {wanted.mitigation.name} is not trained: it runs once"
