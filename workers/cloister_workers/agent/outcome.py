# SPDX-License-Identifier: Apache-2.0
"""How an attempt ended, and whose fault it was (docs/reference/job-errors.md).

FAILED       the job itself: its data, its specification, its evidence.  Trying again would end the same way.
PREEMPTED    this host or the way to it.  The control plane tries again while attempts are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister_workers.agent.errors import AttemptError, HostFault, JobFault, Stop
from cloister_workers.agent.events import figures
from cloister_workers.agent.lease import Lease
from cloister_workers.messages import Failed, FailureCode, FailureNumber, ModelNeed, RefusalReason


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt."""

    state: jobs_pb2.JobState.ValueType
    error: jobs_pb2.JobError | None = None
    artifact_id: str = ""
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    trained_tokens: int = 0
    layer_kind: models_pb2.LayerKind.ValueType = models_pb2.LAYER_KIND_UNSPECIFIED
    layer_digest: str = ""

    def request(self, lease: Lease) -> workers_pb2.FinishJobRequest:
        """As it is sent."""
        return workers_pb2.FinishJobRequest(
            job_id=lease.work_id,
            attempt=lease.attempt,
            state=self.state,
            artifact_id=self.artifact_id,
            error=self.error,
            metrics_before=figures(self.metrics_before),
            metrics_after=figures(self.metrics_after),
            trained_tokens=self.trained_tokens,
            layer_kind=self.layer_kind,
            layer_digest=self.layer_digest,
        )


def of_error(error: AttemptError) -> Outcome:
    """An attempt that ended by an error."""
    state = jobs_pb2.JOB_STATE_PREEMPTED if isinstance(error, HostFault) else jobs_pb2.JOB_STATE_FAILED
    return Outcome(state, jobs_pb2.JobError(code=error.code, message=str(error), param=error.param))


def of_stop(stop: Stop) -> Outcome:
    """An attempt that was ended from outside before it had a result."""
    match stop:
        case Stop.CANCEL:
            return Outcome(jobs_pb2.JOB_STATE_CANCELLED)
        case Stop.PAUSE:
            return Outcome(jobs_pb2.JOB_STATE_PAUSED)
    return of_error(HostFault("HOST_STOPPED", "the worker host was shut down; another attempt goes on"))


_MESSAGES = {
    FailureCode.SPEC_INVALID: "a value of the specification cannot be used",
    FailureCode.ROWS_INVALID: "rows do not have the form that the method needs; the events list their numbers",
    FailureCode.TOO_FEW_ROWS: "the datasets have too few rows for this split",
    FailureCode.TOO_FEW_LABELS: "a classification needs at least two labels in its training rows",
    FailureCode.MODEL_INVALID: "the base model does not load as the method needs it",
    FailureCode.MODEL_UNSUPPORTED: "the base model's architecture is not supported",
    FailureCode.ADAPTER_INVALID: "the adapter does not fit the base model",
    FailureCode.CHECKPOINT_INVALID: "the checkpoint does not fit the specification",
    FailureCode.NON_FINITE_LOSS: "the loss became infinite or undefined; use a smaller learning rate",
    FailureCode.LIBRARY_MISSING: "the method needs a library or a GPU that this host does not have",
    FailureCode.MITIGATION_REFUSED: "the mitigation must not be used here",
    FailureCode.NOTHING_MEASURED: "no primary measure of the specification can be taken on these rows",
    FailureCode.PROTOCOL: "agent and trainer do not understand each other; install one version of both",
    FailureCode.INTERNAL: "a defect in the trainer",
    FailureCode.OUT_OF_MEMORY: "the trainer ran out of memory; use a smaller micro_batch_size or max_seq_length",
    FailureCode.SCRATCH_FULL: "the trainer's scratch space is full; the host's administrator can give it more",
    FailureCode.INPUT_UNREADABLE: "an input ended early",
}
_REFUSALS = {
    RefusalReason.MODEL_KIND: "it does not fit this kind of model",
    RefusalReason.PROTECTED_LABEL_LINK: "the group tells the label, so that erasing it would erase the task",
    RefusalReason.TOO_FEW_TERMS: "a word list has too few terms",
    RefusalReason.TOO_FEW_ROWS: "the rows are too few for what is fitted",
    RefusalReason.NO_GROUPS: "the rows do not say which group they speak of, or all say the same one",
    RefusalReason.NO_PAIRS: "no row has a term of the axis that could be swapped",
    RefusalReason.NOT_ALLOWED: "it is off unless the specification allows it",
    RefusalReason.NOT_LINEAR: "no linear step follows into which the map could be folded",
}
_NEEDS = {
    ModelNeed.CAUSAL: "a causal language model, such as llama or gpt2",
    ModelNeed.MASKED: "a masked language model, such as bert or xlm-roberta",
    ModelNeed.ENCODER: "an encoder, such as bert or xlm-roberta",
}
_OF_THE_HOST = frozenset({FailureCode.OUT_OF_MEMORY, FailureCode.SCRATCH_FULL, FailureCode.INPUT_UNREADABLE})
_WITH_FIELD = frozenset({FailureCode.SPEC_INVALID, FailureCode.ADAPTER_INVALID})
_CODES = {FailureCode.ROWS_INVALID: "INVALID_ROWS", FailureCode.INTERNAL: "TRAINER_DEFECT"}


def trainer_failure(message: Failed) -> AttemptError:
    """What a trainer's own words mean; its numbers and its closed enumerations are all that is passed on."""
    text = _MESSAGES[message.code]
    if (total := message.numbers.get(FailureNumber.TOTAL_ERRORS)) is not None:
        text = f"{text} ({total} rows)"
    if (step := message.numbers.get(FailureNumber.STEP)) is not None:
        text = f"{text} (step {step})"
    if (row := message.numbers.get(FailureNumber.ROW)) is not None:
        text = f"{text}; look at row {row}"
    if message.code is FailureCode.INTERNAL:
        text = f"{text} ({message.kind})"
    if message.code is FailureCode.MITIGATION_REFUSED and message.refusal is not RefusalReason.NONE:
        text = f"{text}: {_REFUSALS[message.refusal]} ({message.refusal})"
    if message.code is FailureCode.MODEL_INVALID and message.model_need is not ModelNeed.NONE:
        text = f"{text}: the method takes {_NEEDS[message.model_need]}"
    fault = HostFault if message.code in _OF_THE_HOST else JobFault
    param = message.spec_field.value if message.code in _WITH_FIELD else ""
    return fault(_CODES.get(message.code, message.code.value), text, param)


def trainer_lost(exit_code: int) -> AttemptError:
    """A trainer that ended without a last word: killed, or out of memory."""
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return HostFault("TRAINER_LOST", f"the trainer ended without a result ({how})")
