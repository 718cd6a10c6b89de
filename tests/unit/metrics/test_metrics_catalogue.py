# SPDX-License-Identifier: Apache-2.0
import asyncio
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from cloister.evidence.entry import Event, Subject
from cloister_audit.catalogue import ACTIONS
from cloister_server.calls import SYSTEM
from cloister_server.metrics.catalogue import COUNTER, LABELS, METRICS, OWN_PREFIX
from cloister_server.metrics.page import page
from cloister_server.metrics.recorder import LEASE_LOST, Recorder

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy" / "monitoring" / "alerts.yml"
NAMED = re.compile(r"\b(?:cloister|process)_[a-z_]+")
NAMES = {metric.name for metric in METRICS}
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sample(recorder: Recorder, name: str, **labels: str) -> float | None:
    return recorder.registry.get_sample_value(name, labels)


def test_the_page_is_made_from_the_catalogue() -> None:
    """docs/reference/metrics.md is what the catalogue says."""
    assert page() == (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")


def test_labels_are_of_a_closed_list() -> None:
    """No metric has a label beyond the few whose values the operator made; names and units are those of Prometheus."""
    assert {"action", "code", "kind", "method", "pool", "version"} == set(LABELS)
    assert [] == [metric.name for metric in METRICS if not set(metric.labels) <= set(LABELS)]
    assert [] == [m.name for m in METRICS if (m.type == COUNTER) != m.name.endswith("_total")]
    assert len(NAMES) == len(METRICS)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_names_metrics_that_exist(rule: dict[str, object]) -> None:
    """Each rule asks for metrics of the catalogue, and tells what is wrong and what to do."""
    expression = str(rule["expr"])
    found = {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAMED.findall(expression)}
    assert found <= NAMES
    assert found or "up{" in expression
    assert {"summary", "action"} == set(rule["annotations"])  # type: ignore[call-overload]  # YAML has no types


def test_each_own_counter_is_made() -> None:
    """The recorder's registry exports names of the catalogue alone, and every counter in it."""
    exported = {
        line.split()[2] for line in generate_latest(Recorder().registry).decode().splitlines() if "# TYPE" in line
    }
    assert exported <= NAMES
    assert {metric.name for metric in METRICS if metric.type == COUNTER} <= exported


def test_a_call_is_counted_with_its_end_and_its_time() -> None:
    """A call that ends well, one that is refused and one that its caller left are told apart, each with its time."""
    clock = Clock()
    recorder = Recorder(clock)
    method = "/cloister.api.v1.JobService/GetJob"
    with recorder.call(method):
        clock.now += 0.3
    with pytest.raises(LookupError), recorder.call(method) as outcome:
        outcome.code = "NOT_FOUND"
        raise LookupError
    with pytest.raises(asyncio.CancelledError), recorder.call(method):
        raise asyncio.CancelledError
    name = "JobService/GetJob"
    ends = {
        code: sample(recorder, "cloister_calls_total", method=name, code=code)
        for code in ("OK", "NOT_FOUND", "CANCELLED")
    }
    assert {"OK": 1.0, "NOT_FOUND": 1.0, "CANCELLED": 1.0} == ends
    assert 0.3 == pytest.approx(sample(recorder, "cloister_call_seconds_sum", method=name))
    assert 2.0 == sample(recorder, "cloister_call_seconds_bucket", method=name, le="0.25")


def test_entries_and_lost_leases_are_counted_once_they_are_durable() -> None:
    """Each committed entry counts under its action, a lost lease also as such; a failed append counts as a failure."""
    recorder = Recorder(Clock())
    subject = Subject("job", "j")
    recorder.committed([Event("job.read", SYSTEM, subject), Event(LEASE_LOST, SYSTEM, subject)])
    with pytest.raises(OSError), recorder.append():
        raise OSError
    assert LEASE_LOST in ACTIONS
    assert 1.0 == sample(recorder, "cloister_audit_entries_total", action="job.read")
    assert (1.0, 1.0) == (
        sample(recorder, "cloister_leases_lost_total"),
        sample(recorder, "cloister_audit_append_failures_total"),
    )
    assert 1.0 == sample(recorder, "cloister_audit_append_seconds_count")


def test_own_names_have_the_prefix() -> None:
    """What is not the process's own business begins with the program's name."""
    assert [] == [name for name in NAMES if not name.startswith((OWN_PREFIX, "process_"))]
