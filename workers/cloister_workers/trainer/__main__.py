# SPDX-License-Identifier: Apache-2.0
"""`python -I -m cloister_workers.trainer`: one job over the control socket at descriptor 3.

Exit status: 0 after a result, a cancellation or a pause; 1 after a failure that was told; 2 where nobody
could be told. Standard output and error are shut: whatever a library prints could hold dataset content.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from cloister_workers.errors import Cancelled, Paused, PeerClosed, ProtocolError
from cloister_workers.protocol import (
    CONTROL_FD,
    Cancel,
    CancelledAt,
    Channel,
    DatasetRole,
    ExceptionKind,
    Failed,
    FailureCode,
    FromTrainer,
    PausedAt,
    Ready,
    Received,
    Side,
    Start,
)

# Read by the libraries while they are imported, so this comes first.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HOME": "/nonexistent",  # a cache would outlive the job
    "TRANSFORMERS_VERBOSITY": "error",
}


def main() -> int:
    """Run the one job of this process."""
    _shut_outputs()
    os.environ |= OFFLINE
    channel = Channel(socket.socket(fileno=CONTROL_FD), Side.TRAINER)
    try:
        return _serve(channel)
    except PeerClosed:
        return 2
    finally:
        channel.close()


def _serve(channel: Channel) -> int:
    try:
        # Seconds of imports, done before Ready so that a waiting trainer starts its job at once.
        from cloister_workers.trainer import dispatch, model
        from cloister_workers.trainer.place import Workplace
    except ImportError:
        channel.send(Failed(code=FailureCode.INTERNAL, kind=ExceptionKind.IMPORT_ERROR))
        return 1
    from cloister_workers.trainer.failures import failure_of
    from cloister_workers.trainer.session import Session

    model.use_cores()
    channel.send(Ready())
    try:
        received = channel.receive()
        with _inputs(received) as (start, inputs):
            tempfile.tempdir = start.scratch
            place = Workplace(start.model_dir, start.scratch, model.pick_device(), auxiliary_dir=start.auxiliary_dir)
            dispatch.run(start, inputs, place, Session(channel))
    except PeerClosed:
        raise
    except Cancelled as stop:
        return _end(channel, CancelledAt(step=stop.step), 0)
    except Paused as stop:
        return _end(channel, PausedAt(step=stop.step), 0)
    except Exception as error:  # noqa: BLE001 - the border of the process: only a closed code may leave
        return _end(channel, failure_of(error), 1)
    return 0


def _end(channel: Channel, message: FromTrainer, status: int) -> int:
    channel.send(message)
    return status


@contextmanager
def _inputs(received: Received) -> Iterator[tuple[Start, dict[DatasetRole, BinaryIO]]]:
    """The start message and its inputs as streams, closed at the end."""
    with ExitStack() as stack:
        streams = [stack.enter_context(os.fdopen(fd, "rb")) for fd in received.fds]
        start = received.message
        if not isinstance(start, Start):
            if isinstance(start, Cancel):
                raise Cancelled(0)
            raise ProtocolError("the first message is not a start; send one")
        if sorted(start.inputs.values()) != list(range(len(streams))):
            raise ProtocolError("the start's inputs do not number its descriptors; give each index once")
        if not {DatasetRole.TRAINING, DatasetRole.EVALUATION} & set(start.inputs):
            raise ProtocolError("the start brings no rows; send the descriptor of a dataset")
        yield start, {role: streams[index] for role, index in start.inputs.items()}


def _shut_outputs() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, sys.stdout.fileno())
    os.dup2(nothing, sys.stderr.fileno())
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
