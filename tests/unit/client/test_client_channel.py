# SPDX-License-Identifier: Apache-2.0
"""Calls: retries, deadlines, and every reason of the contract as an exception."""

import grpc
import pytest

from cloister.api.v1 import errors_pb2, identity_pb2
from cloister.channel import ATTEMPTS, Connection
from cloister.errors import CloisterError, ConnectError, NotFoundError, ServerError
from cloister.reasons import PREFIX, REASONS, error_for
from fake_channel import FakeChannel, Refusal

ASK = identity_pb2.WhoAmIRequest()


def connection(handler):
    slept: list[float] = []
    return Connection(FakeChannel({"WhoAmI": handler}), sleep=slept.append), slept


def failing(code, count, **reason):
    """Fails `count` times, then answers."""
    left = [count]

    def handler(_):
        if left[0]:
            left[0] -= 1
            raise Refusal(code, "text of the site", **reason)
        return identity_pb2.WhoAmIResponse(id="anna")

    return handler


def test_every_reason_has_an_exception():
    """The table of reasons is the contract's enumeration, no more and no less."""
    names = {name.removeprefix(PREFIX) for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name}
    assert names == set(REASONS)


@pytest.mark.parametrize("name", sorted(REASONS))
def test_reason_becomes_its_exception(name):
    """A status with a reason raises that reason's class, in one line that says what to do."""
    link, _ = connection(failing(grpc.StatusCode.INVALID_ARGUMENT, 99, reason=f"{PREFIX}{name}", field="pool"))
    with pytest.raises(CloisterError) as caught:
        link.call(link.identity.WhoAmI, ASK)
    assert REASONS[name].error is type(caught.value)
    assert name == caught.value.reason
    assert f"text of the site (field pool); {REASONS[name].remedy}" == str(caught.value)


def test_unavailable_is_retried_with_growing_waits():
    """A call that found nobody is made again, later each time."""
    link, slept = connection(failing(grpc.StatusCode.UNAVAILABLE, 3))
    assert "anna" == link.call(link.identity.WhoAmI, ASK).id
    assert 3 == len(slept)
    assert all(0 < wait <= 8 for wait in slept)


def test_retries_end():
    """After the last attempt the failure is reported as a connection's."""
    link, slept = connection(failing(grpc.StatusCode.UNAVAILABLE, 99))
    with pytest.raises(ConnectError):
        link.call(link.identity.WhoAmI, ASK)
    assert ATTEMPTS - 1 == len(slept)


def test_what_is_not_idempotent_is_made_once():
    """A call that must not be repeated is not."""
    link, slept = connection(failing(grpc.StatusCode.UNAVAILABLE, 1))
    with pytest.raises(ConnectError):
        link.call(link.identity.WhoAmI, ASK, idempotent=False)
    assert [] == slept


def test_refusals_are_not_retried():
    """An answer is an answer."""
    link, slept = connection(failing(grpc.StatusCode.NOT_FOUND, 1, reason="NOT_FOUND"))
    with pytest.raises(NotFoundError):
        link.call(link.identity.WhoAmI, ASK)
    assert [] == slept


def test_status_without_reason():
    """A status that another program made, such as a proxy, is not mistaken for one of ours."""
    link, _ = connection(failing(grpc.StatusCode.INTERNAL, 99))
    with pytest.raises(ServerError, match="INTERNAL"):
        link.call(link.identity.WhoAmI, ASK)


def test_text_of_the_site_cannot_write_to_the_terminal():
    """Control characters and length of the other side's text are cut."""
    error = error_for("NOT_FOUND", {"state": "a\nb"}, "\x1b[2J" + "x" * 1000)
    assert str(error).isprintable()
    assert len(str(error)) < 600


def test_unknown_reason():
    """A reason of a newer contract is reported, not hidden."""
    error = error_for("NEW_REASON", {}, "")
    assert isinstance(error, ServerError)
    assert "new reason" in str(error)
