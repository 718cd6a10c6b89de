# SPDX-License-Identifier: Apache-2.0
"""Every code with which an attempt can end is explained, and nothing else is."""

import re
from pathlib import Path

import pytest

from cloister_workers.agent.errors import HostFault
from cloister_workers.agent.outcome import trainer_failure
from cloister_workers.messages import Failed, FailureCode, ModelNeed, SpecField

REPOSITORY = Path(__file__).parents[3]
RAISED = re.compile(r"(JobFault|HostFault)\(\s*\"([A-Z_]+)\"")


def codes() -> dict[str, bool]:
    """Code -> whether it is the host's fault, from the source and from the trainer's enumeration."""
    found: dict[str, bool] = {}
    for path in (REPOSITORY / "workers" / "cloister_workers" / "agent").glob("*.py"):
        found |= {code: kind == "HostFault" for kind, code in RAISED.findall(path.read_text(encoding="utf-8"))}
    for code in FailureCode:
        error = trainer_failure(Failed(code=code))
        found[error.code] = isinstance(error, HostFault)
    return found


def test_every_code_is_documented_under_whose_fault_it_is() -> None:
    """The page lists exactly the codes of the agent, those of the host in its second table."""
    page = (REPOSITORY / "docs" / "reference" / "job-errors.md").read_text(encoding="utf-8")
    job, host = page.split("**Handed back**")
    for part, of_host in ((job, False), (host, True)):
        documented = re.findall(r"^\| `([A-Z_]+)`", part, re.MULTILINE)
        assert documented == sorted(code for code, kind in codes().items() if kind is of_host)


def test_messages_of_the_trainers_failures_fit_the_contract() -> None:
    """Every message is printable ASCII of at most 500 characters."""
    said = [Failed(code=code) for code in FailureCode]
    said += [Failed(code=FailureCode.MODEL_INVALID, model_need=need) for need in ModelNeed]
    for message in said:
        text = str(trainer_failure(message))
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 500


@pytest.mark.parametrize("need", set(ModelNeed) - {ModelNeed.NONE})
def test_a_model_of_another_kind_is_told_which_one_to_take(need: ModelNeed) -> None:
    """The message of such a failure names the kind that the method takes; that of damaged files does not."""
    words = {ModelNeed.CAUSAL: "causal", ModelNeed.MASKED: "masked", ModelNeed.ENCODER: "encoder"}
    code = FailureCode.MODEL_INVALID
    assert words[need] in str(trainer_failure(Failed(code=code, model_need=need)))
    assert words[need] not in str(trainer_failure(Failed(code=code)))


def test_a_setting_that_is_refused_is_named() -> None:
    """The error of a job holds the setting of its method that the trainer refused."""
    said = Failed(code=FailureCode.SPEC_INVALID, spec_field=SpecField.CHUNK_TOKENS)
    assert "chunk_tokens" == trainer_failure(said).param
