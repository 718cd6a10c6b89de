# SPDX-License-Identifier: Apache-2.0
"""Whole reinforcement jobs in this process, by TRL, on a tiny model that has first learned to answer at random."""

from __future__ import annotations

import io
import json
import math
import random
from functools import partial

import peft
import pytest
import torch
import transformers

from cloister_workers.errors import Cancelled, Paused, RowsRefused, SpecError, TrainerError
from cloister_workers.messages import (
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    MetricName,
    Progress,
    RowErrors,
    RowReason,
)
from cloister_workers.trainer import job
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.method import AuxiliaryModel
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.reward import RewardModel
from cloister_workers.trainer.place import Workplace
from cloister_workers.trainer.rewards import Exercise
from cloister_workers.trainer.rewards.scorer import load_scorer
from cloister_workers.trainer.spec import parse_spec
from cloister_workers.trainer.steps import reinforcement
from tiny_models import WORDS
from trainer_jobs import evaluated, run_job

# TRL and peft still ask transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
RARE = "charlie"
ANSWERS = ("alpha", "alpha", "bravo", "bravo", RARE, "7")
LORA = {"lora": {"rank": 8, "target_modules": ["all-linear"]}}


def prompts(count, seed=1):
    """Prompts of four words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS[:10], k=4)) for _ in range(count)]


def rows(count=120, **check):
    """Rows that all ask for the same; by default for the answer that the model gives least often."""
    check = check or {"answer": RARE}
    return b"\n".join(json.dumps({"prompt": prompt, **check}).encode() for prompt in prompts(count))


def spec_of(settings=None, adapter=None, data=None, **hyperparameters):
    given = {"learning_rate": 0.02, "batch_size": 32, "micro_batch_size": 32, "max_seq_length": 16, "n_evals": 0}
    own = {"generations": 8, "max_new_tokens": 1, **(settings or {})}
    return parse_spec(
        {
            "model": "tiny",
            "seed": "5",
            "data": data or {"validation_fraction": 0.0, "evaluation_fraction": 0.25},
            "method": {"reinforcement": {"hyperparameters": {**given, **hyperparameters}, **own}},
            "adapter": adapter or LORA,
        }
    )


run = partial(run_job, step=reinforcement.run)


@pytest.fixture(scope="session")
def talker(llama_dir, tmp_path_factory, new_recorder):
    """A model that answers each prompt with one of the answers, at random."""
    start = tmp_path_factory.mktemp("counting")
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama_dir)
    tokenizer.add_tokens(["7"])
    model = transformers.AutoModelForCausalLM.from_pretrained(llama_dir)
    torch.manual_seed(3)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(start)
    tokenizer.save_pretrained(start)
    draw = random.Random(2)
    texts = [{"prompt": prompt, "completion": " " + draw.choice(ANSWERS)} for prompt in prompts(300, 7)]
    spec = parse_spec(
        {
            "model": "tiny",
            "data": {"validation_fraction": 0.0, "evaluation_fraction": 0.0},
            "method": {
                "supervised": {
                    "hyperparameters": {
                        "learning_rate": 0.01,
                        "n_epochs": 4,
                        "batch_size": 32,
                        "max_seq_length": 16,
                        "micro_batch_size": 32,
                    }
                }
            },
            "adapter": {"full": {}},
        }
    )
    scratch = tmp_path_factory.mktemp("warm-up")
    recorder = new_recorder()
    training = io.BytesIO(b"\n".join(json.dumps(row).encode() for row in texts))
    job.run_job(spec, {DatasetRole.TRAINING: training}, Workplace(str(start), str(scratch), CPU), recorder)
    return write_folder(read_bundle(io.BytesIO(recorder.bundles[-1])), str(tmp_path_factory.mktemp("talker")))


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_the_model_learns_what_is_rewarded(talker, tmp_path, recorder, algorithm):
    """The mean reward on held-out prompts rises clearly, and the result is an adapter that plain peft loads."""
    spec = spec_of({"algorithm": algorithm}, n_epochs=3)
    run(spec, talker, tmp_path, recorder, rows())
    before, after = evaluated(recorder, EvaluationPhase.BEFORE), evaluated(recorder, EvaluationPhase.AFTER)
    assert before[MetricName.EVAL_REWARD_CI_HIGH] < after[MetricName.EVAL_REWARD_CI_LOW]
    assert [] == [*tmp_path.iterdir()]
    assert recorder.messages[-1].metrics[MetricName.EVAL_REWARD] == after[MetricName.EVAL_REWARD]

    folder = write_folder(read_bundle(io.BytesIO(recorder.bundles[-1])), str(tmp_path / "result"))
    base = transformers.AutoModelForCausalLM.from_pretrained(talker)
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    [prompt] = prompts(1, seed=99)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    assert RARE == tokenizer.decode(model(ids).logits[0, -1].argmax())


def test_the_loop_is_told_of(talker, tmp_path, recorder):
    """Every step's loss is told, with the mean reward, and evaluations during training are on the validation part."""
    data = {"validation_fraction": 0.1, "evaluation_fraction": 0.1}
    run(spec_of(data=data, max_steps=6, n_evals=1, n_checkpoints=1), talker, tmp_path, recorder, rows())
    assert 6 == len(recorder.losses())
    told = [message for message in recorder.messages if isinstance(message, Progress)]
    assert all(0 <= message.metrics[MetricName.REWARD] <= 1 for message in told)
    assert (6, 6, 0) == (told[-1].step, told[-1].max_steps, told[-1].eta_seconds)
    assert 12.0 == evaluated(recorder, EvaluationPhase.DURING)[MetricName.EVAL_ROWS]
    assert 0 < recorder.messages[-1].trained_tokens


def test_a_pause_keeps_what_was_learned(talker, tmp_path, new_recorder):
    """A job that is paused and goes on takes the steps that were left, from the weights that it had, and learns."""
    spec = spec_of(max_steps=40)
    first = new_recorder(pause_at=20)
    with pytest.raises(Paused) as paused:
        run(spec, talker, tmp_path, first, rows())
    assert 20 == paused.value.step
    second = run(spec, talker, tmp_path, new_recorder(), rows(), checkpoint=first.bundles[0])
    assert (20, 20) == (len(first.losses()), len(second.losses()))
    rate = next(entry for entry in second.messages if isinstance(entry, Progress)).metrics[MetricName.LEARNING_RATE]
    assert 0 < rate < 0.02  # falls from where it was, and does not warm up again
    assert evaluated(first, EvaluationPhase.BEFORE) == evaluated(second, EvaluationPhase.BEFORE)
    assert 1.0 == evaluated(second, EvaluationPhase.AFTER)[MetricName.EVAL_REWARD]


def test_gradients_may_go_unclipped(talker, tmp_path, recorder):
    """Without clipping a step has no norm to tell, and the job goes on."""
    run(spec_of(max_steps=2, max_grad_norm=0.0), talker, tmp_path, recorder, rows())
    told = [message for message in recorder.messages if isinstance(message, Progress)]
    assert all(message.metrics.get(MetricName.GRAD_NORM, 0.0) >= 0 for message in told)
    assert 2 == len(recorder.losses())


def test_a_cancelled_job_stops_at_once(talker, tmp_path, new_recorder):
    """Cancellation is noticed at the next step, and nothing is handed over."""
    stopped = new_recorder(cancel_at=3)
    with pytest.raises(Cancelled) as cancelled:
        run(spec_of(), talker, tmp_path, stopped, rows())
    assert 3 == cancelled.value.step
    assert [] == stopped.bundles


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_the_divergence_holds_back(talker, tmp_path, new_recorder, algorithm):
    """With a large beta the model stays nearer to its start, and the helper adapter of TRL is not in the result."""
    free = run(spec_of({"algorithm": algorithm}, n_epochs=2), talker, tmp_path, new_recorder(), rows())
    held = run(spec_of({"algorithm": algorithm, "beta": 5.0}, n_epochs=2), talker, tmp_path, new_recorder(), rows())
    reward = MetricName.EVAL_REWARD
    assert evaluated(held, EvaluationPhase.AFTER)[reward] < evaluated(free, EvaluationPhase.AFTER)[reward]
    names = sorted(read_bundle(io.BytesIO(held.bundles[-1])))
    assert names == sorted(read_bundle(io.BytesIO(free.bundles[-1])))


@pytest.mark.parametrize(
    ("reward", "check"),
    [
        ("regular_expression", {"pattern": "^ch[a-z]+e$"}),
        ("json_schema", {"schema": {"type": "integer"}}),
    ],
)
def test_other_checks_reward_too(talker, tmp_path, recorder, reward, check):
    """A pattern, and a schema of JSON, raise the reward of what passes them."""
    run(spec_of({"reward": reward}, n_epochs=3), talker, tmp_path, recorder, rows(**check))
    before, after = evaluated(recorder, EvaluationPhase.BEFORE), evaluated(recorder, EvaluationPhase.AFTER)
    assert before[MetricName.EVAL_REWARD_CI_HIGH] < after[MetricName.EVAL_REWARD_CI_LOW]


def says(role, text):
    return [{"role": role, "content": text}]


def comparisons(count):
    """Chats in which the rare answer is the better one."""
    others = ["alpha", "bravo", "echo", "alpha"] * count
    return [
        {"prompt": says("user", prompt), "chosen": says("assistant", RARE), "rejected": says("assistant", other)}
        for prompt, other in zip(prompts(count, 11), others[:count], strict=True)
    ]


def test_a_reward_model_judges(talker, tmp_path, new_recorder):
    """The second model of the job, made by a reward job, raises what its own score is of held-out answers."""

    pairs = b"\n".join(json.dumps(row).encode() for row in comparisons(40))
    asked = b"\n".join(json.dumps({"prompt": says("user", prompt)}).encode() for prompt in prompts(120))
    wanted = {"learning_rate": 0.01, "batch_size": 8, "micro_batch_size": 8, "max_seq_length": 16}
    judge = job_of("reward", wanted, talker, tmp_path, new_recorder(), pairs)
    assert 1.0 == evaluated(judge, EvaluationPhase.AFTER)[MetricName.EVAL_ACCURACY]

    spec = spec_of({"reward": "model"}, n_epochs=3)
    layer = {"auxiliary_layer": judge.bundles[-1]}
    learned = run(spec, talker, tmp_path, new_recorder(), asked, auxiliary=talker, **layer)
    before, after = evaluated(learned, EvaluationPhase.BEFORE), evaluated(learned, EvaluationPhase.AFTER)
    assert before[MetricName.EVAL_REWARD_CI_HIGH] < after[MetricName.EVAL_REWARD_CI_LOW]


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_judge_scores_as_it_was_trained(talker, bert_dir, tmp_path, new_recorder, kind):
    """A reward model of whole weights scores texts and chats as its own job did, and empty or endless answers too."""
    folder = {"causal": talker, "encoder": bert_dir}[kind]
    wanted = {"learning_rate": 0.002, "batch_size": 8, "micro_batch_size": 8, "max_seq_length": 32}
    pairs = comparisons(40)
    training = b"\n".join(json.dumps(row).encode() for row in pairs)
    made = job_of("reward", wanted, folder, tmp_path, new_recorder(), training, adapter={"full": {}})
    judge = write_folder(read_bundle(io.BytesIO(made.bundles[-1])), str(tmp_path / "judge"))
    scorer = load_scorer(AuxiliaryModel(str(judge), ""), CPU, lambda: None)
    tasks = [Exercise(row["prompt"], "", None) for row in pairs]
    sides = [scorer(tasks, [row[side][0]["content"] for row in pairs]) for side in ("chosen", "rejected")]
    reader = ChatReader(scorer.tokenizer, 32)
    objective = RewardModel(reader, 8, CPU)
    examples = [example for example in objective.read(pairs) if isinstance(example, Example)]
    expected = objective.outcome(scorer.model, examples).predicted
    assert torch.allclose(expected, torch.tensor(sides[0]) - torch.tensor(sides[1]), atol=1e-5)
    assert all(map(math.isfinite, scorer([Exercise("alpha", "", None)] * 2, ["", "alpha " * 500])))


def job_of(method, hyperparameters, model_dir, scratch, recorder, training, adapter=None):
    body = {method: {"hyperparameters": hyperparameters}}
    spec = parse_spec({"model": "tiny", "seed": "5", "method": body, "adapter": adapter or LORA})
    inputs = {DatasetRole.TRAINING: io.BytesIO(training)}
    job.run_job(spec, inputs, Workplace(str(model_dir), str(scratch), CPU), recorder)
    return recorder


def test_a_model_that_does_not_score_is_no_judge(talker, tmp_path, recorder):
    """A second model without the one output is refused before anything is trained, and so is none at all."""
    spec = spec_of({"reward": "model"})
    with pytest.raises(TrainerError) as caught:
        run(spec, talker, tmp_path, recorder, rows(), auxiliary=talker)
    assert FailureCode.MODEL_INVALID == caught.value.code
    with pytest.raises(SpecError):
        run(spec, talker, tmp_path, recorder, rows())
    assert [] == recorder.bundles


def test_chats_are_prompts_too(talker, tmp_path, recorder):
    """A list of messages goes through the chat template up to the assistant's turn, and learns as a text does."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts(60)]
    training = b"\n".join(json.dumps({"prompt": chat, "answer": RARE}).encode() for chat in chats)
    run(spec_of(max_steps=30), talker, tmp_path, recorder, training)
    assert 1.0 == evaluated(recorder, EvaluationPhase.AFTER)[MetricName.EVAL_REWARD]


@pytest.mark.parametrize(
    ("reward", "row", "reason"),
    [
        ("exact_answer", {"prompt": "alpha"}, RowReason.MISSING_KEY),
        ("exact_answer", {"answer": "alpha"}, RowReason.MISSING_KEY),
        ("exact_answer", {"prompt": "alpha", "answer": 7}, RowReason.WRONG_TYPE),
        ("exact_answer", {"prompt": "alpha " * 16, "answer": "alpha"}, RowReason.TOO_LONG),
        ("exact_answer", {"prompt": [{"role": "assistant", "content": "a"}], "answer": "a"}, RowReason.NO_COMPLETION),
        ("regular_expression", {"prompt": "alpha", "pattern": "("}, RowReason.BAD_CHECK),
        ("json_schema", {"prompt": "alpha", "schema": {"type": 5}}, RowReason.BAD_CHECK),
        ("json_schema", {"prompt": "alpha", "schema": {"$ref": "http://127.0.0.1/x"}}, RowReason.BAD_CHECK),
        ("json_schema", {"prompt": "alpha", "schema": "integer"}, RowReason.WRONG_TYPE),
    ],
)
def test_unusable_rows_are_refused_by_number(talker, tmp_path, recorder, reward, row, reason):
    """A row whose prompt or check cannot be used is refused with its number and reason before anything is trained."""
    good = {"prompt": "alpha", "answer": "alpha", "pattern": "a", "schema": {}}
    training = b"\n".join(json.dumps(entry).encode() for entry in (good, row, good))
    with pytest.raises(RowsRefused):
        run(spec_of({"reward": reward}), talker, tmp_path, recorder, training)
    [told] = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert ((2, reason),) == told.errors


def test_a_model_of_another_kind_is_refused(bert_dir, tmp_path, recorder):
    """An encoder answers nothing: it is refused before anything is trained, a masked language model too."""
    masked = tmp_path / "masked"
    torch.manual_seed(1)
    transformers.BertForMaskedLM(transformers.BertConfig.from_pretrained(bert_dir)).save_pretrained(masked)
    transformers.AutoTokenizer.from_pretrained(bert_dir).save_pretrained(masked)
    for folder in (bert_dir, masked):
        with pytest.raises(TrainerError) as caught:
            run(spec_of(), folder, tmp_path, recorder, rows())
        assert FailureCode.MODEL_INVALID == caught.value.code
    assert [] == recorder.losses()


def test_settings_that_do_not_fit_are_refused(talker, tmp_path, recorder):
    """Batches that generations do not divide, no room for a prompt, a divergence without an adapter, too few rows."""
    for spec in (
        spec_of(batch_size=12),
        spec_of(micro_batch_size=0),
        spec_of(keep_best=True),
        spec_of(early_stop_patience=2),
        spec_of({"max_new_tokens": 16}),
        spec_of({"beta": 0.1}, adapter={"full": {}}),
        spec_of({"algorithm": "ppo"}),
        spec_of(adapter={"lora": {"target_modules": ["lm_head", "q_proj"]}}),
        spec_of(data={"too_long": "truncate"}),
    ):
        with pytest.raises(SpecError):
            run(spec, talker, tmp_path, recorder, rows())
    with pytest.raises(TrainerError) as caught:
        run(spec_of(), talker, tmp_path, recorder, rows(4))
    assert FailureCode.TOO_FEW_ROWS == caught.value.code


def test_every_weight_can_learn(talker, tmp_path, recorder):
    """Full fine-tuning by reinforcement gives whole weights that plain transformers loads."""
    run(spec_of(adapter={"full": {}}, learning_rate=0.002, max_steps=40), talker, tmp_path, recorder, rows())
    assert 1.0 == evaluated(recorder, EvaluationPhase.AFTER)[MetricName.EVAL_REWARD]
    folder = write_folder(read_bundle(io.BytesIO(recorder.bundles[-1])), str(tmp_path / "result"))
    assert "_name_or_path" in transformers.AutoModelForCausalLM.from_pretrained(folder).config.to_dict()


def test_an_adapter_is_trained_on_and_merged(talker, tmp_path, new_recorder):
    """A job that starts from an adapter begins with what that one learned; merged, the result is whole weights."""
    first = run(spec_of(n_epochs=3), talker, tmp_path, new_recorder(), rows())
    merge = {"lora": {"rank": 8, "merge": True}}
    spec = spec_of({"beta": 0.01}, adapter=merge, max_steps=2)
    second = run(spec, talker, tmp_path, new_recorder(), rows(), layer=first.bundles[-1])
    reward = MetricName.EVAL_REWARD
    assert evaluated(first, EvaluationPhase.AFTER)[reward] == evaluated(second, EvaluationPhase.BEFORE)[reward]
    assert 1.0 == evaluated(second, EvaluationPhase.AFTER)[reward]
    assert "model.safetensors" in read_bundle(io.BytesIO(second.bundles[-1]))
