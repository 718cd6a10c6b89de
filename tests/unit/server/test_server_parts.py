# SPDX-License-Identifier: Apache-2.0
import inspect
import io
import json
from dataclasses import replace

import pytest

from cloister.api.v1 import common_pb2, errors_pb2, jobs_pb2
from cloister.evidence.errors import FormatError
from cloister.sealed.keys import WRAP_SIZE, Identity
from cloister_server import crashpoints, errors, recipients
from cloister_server.calls import Call, Principal
from cloister_server.errors import InvalidFieldError, ServerError
from cloister_server.journal import Journal
from cloister_server.pages import Page, timestamp
from cloister_server.policy_table import ROLES, WITH_EXPIRED_ROSTER
from cloister_server.queue.spec import read_spec

SPEC = {
    "model": "m",
    "training_dataset": "d",
    "max_attempts": 3,
    "method": {"supervised": {}},
    "adapter": {"lora": {}},
}


def error_classes() -> list[type[ServerError]]:
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, ServerError)]
    return [c for c in found if c is not ServerError]


def test_every_reason_of_the_contract_has_one_class() -> None:
    """The reasons that the server raises are exactly those of errors.proto, each once."""
    names = [name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()]  # noqa: SIM118  # no mapping
    raised = ["INTERNAL", *(c.reason for c in error_classes())]
    assert sorted(names) == sorted([*raised, "UNSPECIFIED"])


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    """The docstring of errors.py names each class."""
    text = errors.__doc__ or ""
    assert [] == [c.__name__ for c in error_classes() if c.__name__ not in text]


def test_a_key_id_is_the_one_that_sealing_writes() -> None:
    """The server names a recipient as the client does, though it has none of its code; wraps have the same size."""
    recipient = Identity.generate().recipient
    assert recipient.key_id == recipients.recipient_key_id(str(recipient))
    assert WRAP_SIZE == recipients.WRAP_SIZE


@pytest.mark.parametrize("text", ["", "age1pq1", "age1qqqq", "age1pq1" + "b" * 2000])
def test_a_damaged_recipient_is_refused(text: str) -> None:
    """What is no age1pq key has no key id."""
    with pytest.raises(FormatError):
        recipients.recipient_key_id(text)


def test_the_journal_keeps_messages_of_exceptions_out() -> None:
    """A failure's line has type and place of the exception and nothing of its text."""
    stream = io.StringIO()
    Journal(stream, lambda: 1.0).failure("broken", ValueError("text of a row"), corr_id="c")
    line = json.loads(stream.getvalue())
    assert ("ValueError", "c", "broken") == (line["type"], line["corr_id"], line["event"])
    assert "text of a row" not in stream.getvalue()


def test_nothing_crashes_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash point does nothing unless the test named this very point."""
    monkeypatch.delenv(crashpoints.VARIABLE, raising=False)
    crashpoints.crash_here("blob.synced")
    monkeypatch.setenv(crashpoints.VARIABLE, "blob.renamed")
    crashpoints.crash_here("blob.synced")


def test_what_works_with_an_expired_roster_is_in_the_table() -> None:
    """The exceptions for an expired roster are methods of the table."""
    assert set() == WITH_EXPIRED_ROSTER - set(ROLES)


@pytest.mark.parametrize(
    ("team", "roles", "sees"),
    [
        ("blue", {"member"}, True),
        ("green", {"member"}, False),
        ("green", {"auditor"}, True),
        ("green", {"admin"}, False),
    ],
)
def test_only_the_team_and_auditors_see_a_team(team: str, roles: set[str], *, sees: bool) -> None:
    """An object of team blue is visible to its people and to auditors, not to other teams and not to admins."""
    person = Principal("p", "person", team, "", frozenset(roles), "", "")
    assert sees == person.may_see("blue")
    assert not replace(person, kind="host", roles=frozenset({"worker"})).may_see("blue")


@pytest.mark.parametrize(("given", "written"), [("abc-1", "abc-1"), ("my secret text!", ""), ("x" * 65, ""), ("", "")])
def test_what_is_no_id_is_not_written_to_the_log(given: str, written: str) -> None:
    """A refusal's entry names the object only where the caller's word has the form of an id."""

    async def recheck() -> None:
        return None

    call = Call("/m", "c", Principal("p", "person", "t", "", frozenset(), "", ""), recheck)
    call.about("dataset", given)
    assert ("dataset", written) == (call.subject.type, call.subject.id)


def test_a_spec_is_read_strictly() -> None:
    """The JSON form of a JobSpec is taken; an unknown field is not."""
    assert "d" == read_spec(json.dumps(SPEC).encode()).training_dataset
    with pytest.raises(InvalidFieldError):
        read_spec(json.dumps({**SPEC, "colour": "red"}).encode())


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("method", {}, "spec.method"),
        ("adapter", {}, "spec.adapter"),
        ("priority", 101, "spec.priority"),
        ("max_attempts", 0, "spec.max_attempts"),
        ("max_attempts", 11, "spec.max_attempts"),
        ("suffix", "../up", "spec.suffix"),
        ("metadata", {str(n): "v" for n in range(17)}, "spec.metadata"),
        ("data", {"validation_fraction": 0.6}, "spec.data.validation_fraction"),
        ("data", {"max_rows": -1}, "spec.data.max_rows"),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: object, named: str) -> None:
    """Each bound of the contract is checked, and the refusal names the field."""
    with pytest.raises(InvalidFieldError) as refused:
        read_spec(json.dumps({**SPEC, field: value}).encode())
    assert named == refused.value.metadata["field"]


def test_bytes_that_are_no_spec_are_refused() -> None:
    """Neither junk nor a spec of more than 64 KiB is read."""
    for data in (b"\xff\xfe", b"[]", b" " * 70_000):
        with pytest.raises(InvalidFieldError):
            read_spec(data)


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_has_a_size_within_bounds(size: int) -> None:
    """A page of another size than 0 to 1000 is refused."""
    with pytest.raises(InvalidFieldError):
        Page.read(common_pb2.PageRequest(page_size=size))


def test_a_time_of_zero_is_absent() -> None:
    """Zero means that it has not happened: the field stays unset."""
    assert timestamp(0) is None
    assert 1_800_000_000_123 == jobs_pb2.Job(created_at=timestamp(1_800_000_000_123)).created_at.ToMilliseconds()
