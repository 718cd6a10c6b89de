# SPDX-License-Identifier: Apache-2.0
"""The control protocol between agent and trainer."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path

import pytest

from cloister_workers.errors import Cancelled
from cloister_workers.protocol import (
    MAX_FRAME,
    Cancel,
    Channel,
    Checkpoint,
    DatasetRole,
    Failed,
    FailureCode,
    FailureNumber,
    MetricName,
    Pause,
    PeerClosed,
    Progress,
    ProtocolError,
    Ready,
    RowErrors,
    RowReason,
    Side,
    Start,
    decode,
    encode,
)

PROGRESS = Progress(
    step=2,
    max_steps=4,
    epoch=0.5,
    metrics={MetricName.LOSS: 1.25},
    losses=(1.5, 1.25),
    trained_tokens=10,
    eta_seconds=3.0,
)


@pytest.fixture
def ends():
    left, right = socket.socketpair()
    agent, trainer = Channel(left, Side.AGENT), Channel(right, Side.TRAINER)
    yield agent, trainer
    agent.close()
    trainer.close()


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        PROGRESS,
        RowErrors(dataset=DatasetRole.TRAINING, total_errors=3, errors=((2, RowReason.NOT_JSON),)),
        Failed(code=FailureCode.NON_FINITE_LOSS, numbers={FailureNumber.STEP: 7}),
    ],
)
def test_message_survives_the_frame(message):
    """Decoding an encoded message gives an equal one."""
    assert message == decode(encode(message)[4:], Side.AGENT)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "a row"},
        {"metrics": {"canary": 1.0}},
        {"metrics": {"loss": "canary"}},
        {"step": -1},
        {"step": 1.5},
        {"step": True},
        {"losses": ["canary"]},
        {"losses": [0.0] * 1025},
        {"type": "canary"},
    ],
)
def test_nothing_outside_the_schema_is_received(change):
    """A message with an unknown key, name, type or value is refused."""
    body = json.loads(encode(PROGRESS)[4:]) | change
    with pytest.raises(ProtocolError):
        decode(json.dumps(body).encode(), Side.AGENT)


@pytest.mark.parametrize("body", [b"[]", b"\xff", b'{"type":"ready","type":"ready"}', b"{", b"[" * 30000])
def test_broken_bodies_are_refused(body):
    """A body that is no plain JSON object is a ProtocolError and nothing else."""
    with pytest.raises(ProtocolError):
        decode(body, Side.AGENT)


def test_non_finite_numbers_are_not_sent():
    """A metric that is not finite is refused by the sender."""
    with pytest.raises(ProtocolError):
        encode(Checkpoint(step=1, metrics={MetricName.LOSS: float("nan")}))


def test_each_side_takes_only_what_the_other_may_say():
    """An agent's message is refused by an agent, and a trainer's by a trainer."""
    with pytest.raises(ProtocolError):
        decode(encode(Cancel())[4:], Side.AGENT)
    with pytest.raises(ProtocolError):
        decode(encode(Ready())[4:], Side.TRAINER)


def test_descriptors_ride_along(ends):
    """A descriptor arrives with the message it was sent with, open and readable."""
    agent, trainer = ends
    reader, writer = os.pipe()
    os.write(writer, b"rows")
    start = Start(spec={}, inputs={DatasetRole.TRAINING: 0}, model_dir="/m", scratch="/s", attempt=1)
    agent.send(Cancel())
    agent.send(start, [reader])
    os.close(reader)
    os.close(writer)
    assert Cancel() == trainer.receive().message
    received = trainer.receive()
    assert start == received.message
    with os.fdopen(received.fds[0], "rb") as stream:
        assert b"rows" == stream.read()


def test_descriptor_without_need_is_refused(ends):
    """A message that needs no descriptor but brings one is refused, and the descriptor closed."""
    agent, trainer = ends
    reader, writer = os.pipe()
    before = len(list(Path("/proc/self/fd").iterdir()))
    socket.send_fds(agent._socket, [encode(Cancel())], [reader])
    with pytest.raises(ProtocolError):
        trainer.receive()
    assert before == len(list(Path("/proc/self/fd").iterdir()))
    os.close(reader)
    os.close(writer)


def test_poll_never_waits_for_the_rest(ends):
    """Polling half a frame gives nothing, and the whole message once the rest is there."""
    agent, trainer = ends
    frame = encode(Cancel())
    agent._socket.sendall(frame[:7])
    assert trainer.poll() is None
    agent._socket.sendall(frame[7:])
    received = trainer.poll()
    assert received is not None
    assert Cancel() == received.message


def test_oversized_frame_is_refused(ends):
    """A length above the limit is refused before anything is read for it."""
    agent, trainer = ends
    agent._socket.sendall(struct.pack(">I", MAX_FRAME + 1))
    with pytest.raises(ProtocolError):
        trainer.receive()


def test_end_of_stream_is_told_apart(ends):
    """A peer that is gone gives PeerClosed on reading and on writing."""
    agent, trainer = ends
    agent.close()
    with pytest.raises(PeerClosed):
        trainer.poll()
    with pytest.raises(PeerClosed):
        trainer.send(Ready())


class _LeavesAtOnce(socket.socket):
    """A socket whose peer closes as soon as it has been sent to."""

    peer: socket.socket

    def sendmsg(self, *arguments):
        sent = super().sendmsg(*arguments)
        self.peer.close()
        return sent


def test_a_peer_that_takes_a_frame_and_leaves_was_told():
    """Sending succeeds when the whole frame went out, and what the peer said before it left is still read."""
    left, right = socket.socketpair()
    sender = _LeavesAtOnce(fileno=left.detach())
    sender.peer = right
    agent, trainer = Channel(sender, Side.AGENT), Channel(right, Side.TRAINER)
    last = Failed(code=FailureCode.SCRATCH_FULL)
    trainer.send(last)
    agent.send(Cancel())
    assert last == agent.receive().message
    with pytest.raises(PeerClosed):  # and not ConnectionResetError, though it left words unread
        agent.receive()
    agent.close()


def test_session_takes_what_the_agent_asks(ends):
    """A pause is remembered, a cancel stops at the given step, and an agent that is gone stops too."""
    from cloister_workers.trainer.session import Session

    agent, trainer = ends
    session = Session(trainer)
    session.poll(3)
    assert not session.pause_wanted()
    agent.send(Pause())
    session.poll(4)
    assert session.pause_wanted()
    agent.send(Cancel())
    with pytest.raises(Cancelled) as caught:
        session.poll(5)
    assert 5 == caught.value.step
    agent.close()
    with pytest.raises(PeerClosed):
        session.poll(6)
