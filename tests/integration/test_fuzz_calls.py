# SPDX-License-Identifier: Apache-2.0
"""Requests of any content to every RPC of a served control plane: an answer or a refusal, never a defect."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from cloister.api.v1 import errors_pb2, workers_pb2
from cloister_server.journal import Journal
from cloister_server.policy_table import ROLES
from cloister_server.services.workers import MAX_WAIT_SECONDS
from contract_methods import METHODS, empty_request, invoke
from fuzzing import examples
from good_requests import SIGNED, GoodRequests
from json_strategies import Edit, edits
from message_strategies import Change, changes, messages
from served_site import Caller, Founded, Refused, served, sqlite_url

LOG = io.StringIO()
VIEWS = tuple(
    f"/cloister.api.v1.{name}"
    for name in (
        "DatasetService/ListDatasets",
        "JobService/ListJobs",
        "ModelService/ListModelVersions",
        "ModelService/ListReleases",
    )
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoodRequests]:
    directory: Path = tmp_path_factory.mktemp("site")
    key, certificate = directory / "root" / "ca.key", directory / "root" / "ca.crt"
    url, journal = sqlite_url(directory), Journal(LOG)
    with served(Founded(directory), url, journal, issuing_key=key, issuing_certificate=certificate) as live:
        yield GoodRequests(live)


REASONS = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118 (no dict)


def defects() -> list[dict[str, object]]:
    lines = [json.loads(line) for line in LOG.getvalue().splitlines()]
    return [line for line in lines if line["level"] == "error"]


def hold(outcome: Refused | list[Message]) -> None:
    """The outcome of a call is an answer, or a refusal with one of the contract's reasons, and no defect."""
    assert [] == defects()[-1:], outcome
    if isinstance(outcome, Refused):
        assert outcome.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
        # The health service of the library answers for itself, without a reason.
        assert outcome.reason in REASONS or outcome.code == grpc.StatusCode.NOT_FOUND


@pytest.fixture(autouse=True)
def _forget() -> None:
    LOG.seek(0)
    LOG.truncate()


def test_every_method_has_a_good_request(good: GoodRequests) -> None:
    """Each method of the descriptors is fuzzed from a request that it answers, by a caller whom the table allows."""
    assert set(ROLES) == set(METHODS)
    refused = {}
    for method in METHODS:
        outcome = invoke(good.callers(method)[0], method, good.request(method), messages=1)
        if isinstance(outcome, Refused):
            refused[method] = outcome
    assert {} == refused


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_request_brings_down_a_call(good: GoodRequests, method: str) -> None:
    """Any message of a method's kind, and any change of a good one, is answered or refused for a reason."""
    callers, kind = good.callers(method), METHODS[method].input_type

    @examples(6)
    @given(st.sampled_from(callers), messages(kind))
    def anything(caller: Caller, request: Message) -> None:
        hold(call(caller, method, request))

    @examples(8)
    @given(st.sampled_from(callers), changes(kind))
    def changed(caller: Caller, several: list[Change]) -> None:
        request = good.request(method)
        for change in several:
            change.apply(request)
        hold(call(caller, method, request))

    anything()
    changed()
    hold_views(good)


@pytest.mark.parametrize("method", sorted(SIGNED))
def test_no_signed_document_brings_down_a_call(good: GoodRequests, method: str) -> None:
    """Whatever a member, an approver or a host signs is taken or refused, and what was taken can be listed."""
    caller = good.callers(method)[0]

    @examples(15)
    @given(edits(), edits())
    def signed(first: list[Edit], second: list[Edit]) -> None:
        hold(call(caller, method, good.signed(method, first, second)))
        hold_views(good)

    signed()


def call(caller: Caller, method: str, request: Message) -> Refused | list[Message]:
    """A call that never waits for work, and hears the start of a stream."""
    if isinstance(request, workers_pb2.LeaseWorkRequest) and 0 < request.wait_seconds <= MAX_WAIT_SECONDS:
        request.wait_seconds = 0
    return invoke(caller, method, request, messages=1 if "Health" in method else 3, timeout=5)


def hold_views(good: GoodRequests) -> None:
    """Whatever was asked before, members and auditors can list everything."""
    for view in VIEWS:
        for reader in ("alice", "carol"):
            listed = invoke(good.live.caller(reader), view, empty_request(view))
            assert not isinstance(listed, Refused), listed
            hold(listed)
            # What cannot be written as JSON would break every command with --json.
            json_format.MessageToJson(listed[0])
