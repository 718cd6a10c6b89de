# SPDX-License-Identifier: Apache-2.0
"""A program in an instance of a unit, as the agent starts, watches and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister_workers.sandbox.errors import SandboxStartError
from cloister_workers.sandbox.spec import SandboxSpec
from cloister_workers.sandbox.unit import UnitProcess, launch_in_unit
from trainer_unit import TrainerUnit, trainer_unit

PATIENCE = 30.0
HOLD = """
import os, signal
if os.fork() == 0:
    os.setsid()
    os.write(1, b"up")
signal.pause()
"""
"""A program with a descendant in another session, that never ends by itself."""


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[TrainerUnit]:
    with trainer_unit(tmp_path) as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "model"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)
    (folder / "config.json").write_text("{}")
    # As the model cache leaves them, whatever umask this process has.
    folder.chmod(0o755)
    (folder / "config.json").chmod(0o644)
    return folder


def start(unit: TrainerUnit, code: str, output: int, **spec: object) -> UnitProcess:
    wanted = SandboxSpec(pass_fds={1: output}, **spec)  # type: ignore[arg-type]  # what the test gives
    return launch_in_unit(unit.address, [sys.executable, "-I", "-S", "-c", code], wanted)


def said(unit: TrainerUnit, code: str, **spec: object) -> tuple[str, int]:
    """What a program prints, and how it ends."""
    read, write = os.pipe()
    with os.fdopen(read) as stream, start(unit, code, write, **spec) as process:
        os.close(write)
        text = stream.read()
        ended = process.wait(PATIENCE)
    return text, ended


def test_a_program_gets_what_was_passed_and_nothing_else(unit: TrainerUnit, model: Path) -> None:
    """Models by descriptor, the environment of the plan, the limits; no descriptor beside them."""
    code = (
        "import os, resource; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.environ.get('X'),"
        " os.listdir('/proc/self/fd/3'), os.getcwd(), resource.getrlimit(resource.RLIMIT_FSIZE)[0])"
    )
    text, ended = said(unit, code, model_dir=model, env={"X": "y"}, file_bytes=12345)
    assert (text, ended) == ("[0, 1, 2, 3] y ['config.json'] /scratch 12345\n", 0)


def test_both_models_have_paths(unit: TrainerUnit, model: Path) -> None:
    """The second model is another descriptor, and the process names both paths."""
    read, write = os.pipe()
    with start(unit, "", write, model_dir=model, auxiliary_dir=model) as process:
        assert (process.model_path, process.auxiliary_path) == ("/proc/self/fd/3", "/proc/self/fd/4")
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("code", "ended"), [("import sys; sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 11)", -11)]
)
def test_the_end_of_the_program_is_told(unit: TrainerUnit, code: str, ended: int) -> None:
    """An exit code and a signal reach the agent, whose child the program is not."""
    assert said(unit, code) == ("", ended)


def test_letting_go_ends_the_program_and_its_descendants(unit: TrainerUnit) -> None:
    """`kill` ends all of it, in other sessions too, and `wait` returns when nothing is left."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream, start(unit, HOLD, write) as process:
        os.close(write)
        assert stream.read(2) == b"up"
        assert process.returncode is None
        with pytest.raises(TimeoutError):
            process.wait(0)
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert stream.read() == b""  # nobody holds the pipe any more
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_an_instance_that_is_ended_from_outside_counts_as_killed(unit: TrainerUnit) -> None:
    """Out of memory or stopped by an administrator: the agent hears of an end, and does not wait for ever."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream, start(unit, HOLD, write) as process:
        os.close(write)
        assert stream.read(2) == b"up"
        unit.instances[0].kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_an_agent_that_dies_takes_its_program_along(unit: TrainerUnit) -> None:
    """SIGKILL of the agent closes the connection, and with it the program."""
    agent = (
        "import sys; from pathlib import Path; from cloister_workers.sandbox.unit import launch_in_unit;"
        "from cloister_workers.sandbox.spec import SandboxSpec; spec = SandboxSpec(pass_fds={1: 1});"
        "launch_in_unit(Path(sys.argv[1]), [sys.executable, '-I', '-c', sys.argv[2]], spec).wait()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", agent, str(unit.address), HOLD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"up"
        process.kill()
        assert process.stdout.read() == b""


def test_what_cannot_start_is_said(unit: TrainerUnit, model: Path, tmp_path: Path) -> None:
    """A missing program, a refused connection, no socket, an open cache: each raises, with its reason."""
    with pytest.raises(SandboxStartError, match="program"):
        launch_in_unit(unit.address, ["/nonexistent"], SandboxSpec())
    with pytest.raises(SandboxStartError, match="No such file"):
        launch_in_unit(tmp_path / "absent.sock", [sys.executable], SandboxSpec())
    model.parent.chmod(0o755)
    with pytest.raises(SandboxStartError, match="chmod 0700"):
        launch_in_unit(unit.address, [sys.executable], SandboxSpec(model_dir=model))
    unit.refuse = True
    with pytest.raises(SandboxStartError, match="in use"):
        launch_in_unit(unit.address, [sys.executable], SandboxSpec())
