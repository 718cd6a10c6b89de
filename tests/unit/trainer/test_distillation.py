# SPDX-License-Identifier: Apache-2.0
"""Distillation: divergences and their gradients against torch, whole jobs with a teacher, resume, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from torch.nn import functional

from cloister_workers.errors import Paused, SpecError, TrainerError
from cloister_workers.messages import EvaluationPhase, FailureCode, MetricName, RowReason, SpecField
from cloister_workers.trainer import chunked
from cloister_workers.trainer.divergence import Mixture, Predictor
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.model import load_causal, load_tokenizer
from cloister_workers.trainer.objectives.language_model import language_model
from cloister_workers.trainer.spec import parse_spec
from tiny_models import WORDS, write_llama, write_tokenizer
from trainer_jobs import refused, run_job

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
FULL: dict[str, object] = {"full": {}}
LORA: dict[str, object] = {"lora": {"target_modules": ["q_proj", "v_proj"]}}


def rows(count):
    """Texts in even rows, prompts with completions in odd ones."""
    lines = []
    for number in range(count):
        words = [WORDS[(number * step + step) % 10] for step in range(1, 5 + number % 5)]
        text = {"text": " ".join([*words, WORDS[number // 10 % 10]])}
        pair = {"prompt": " ".join(words[:2]), "completion": " " + " ".join([*words[2:], WORDS[number // 10 % 10]])}
        lines.append(json.dumps(pair if number % 2 else text))
    return "\n".join(lines).encode()


def spec_of(settings=None, adapter=None, **hyperparameters):
    given = {"batch_size": 8, "max_seq_length": 32, "learning_rate": 0.01, "n_epochs": 2, **hyperparameters}
    method = {"distillation": {**(settings or {}), "hyperparameters": given}}
    return parse_spec({"model": "tiny", "seed": "5", "method": method, "adapter": adapter or FULL})


def run(spec, folders, scratch, recorder, **more):
    student, teacher = folders
    return run_job(spec, student, scratch, recorder, rows(60), auxiliary=teacher, **more)


def measured(recorder):
    found = {entry[0]: entry[2] for entry in recorder.messages if isinstance(entry, tuple) and len(entry) == 3}
    return found[EvaluationPhase.BEFORE], found[EvaluationPhase.AFTER]


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory):
    """A wider model that knows what follows: its head's weights are large."""
    directory = tmp_path_factory.mktemp("teacher")
    size = write_tokenizer(directory)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(3)
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture
def folders(llama_dir, teacher_dir):
    return llama_dir, teacher_dir


# ---------------------------------------------------------------- the loss
def predictors(count=7, grad=True):
    torch.manual_seed(1)
    student, teacher = torch.nn.Linear(6, 11), torch.nn.Linear(5, 11, bias=False)
    states = torch.randn(count, 6, requires_grad=grad)
    return Predictor(states, student), Predictor(torch.randn(count, 5), teacher), torch.randint(11, (count,))


@pytest.mark.parametrize("chunk", [3, 1024])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_loss_is_torchs_kl_div_and_cross_entropy(monkeypatch, chunk, temperature, share, reverse):
    """Losses and gradients equal kl_div of softened logits times T^2, mixed with cross-entropy, in whatever chunks."""
    monkeypatch.setattr(chunked, "CHUNK", chunk)
    student, teacher, targets = predictors()
    found = Mixture(temperature, share, reverse).losses(student, teacher, targets)
    slopes = torch.autograd.grad(found.sum(), [student.states, student.head.weight])
    logits, taught = student.head(student.states), teacher.head(teacher.states).detach()
    p, q = (taught / temperature).log_softmax(-1), (logits / temperature).log_softmax(-1)
    apart = functional.kl_div(*((p, q) if reverse else (q, p)), log_target=True, reduction="none").sum(-1)
    expected = share * temperature**2 * apart + (1 - share) * functional.cross_entropy(
        logits, targets, reduction="none"
    )
    assert expected.detach().tolist() == pytest.approx(found.detach().tolist(), abs=1e-5)
    for one, other in zip(
        torch.autograd.grad(expected.sum(), [student.states, student.head.weight]), slopes, strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    """gradcheck in double precision holds for the mixture of both parts."""
    torch.manual_seed(2)
    states = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    head, taught = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 5)

    class Head(torch.nn.Module):
        def forward(self, hidden):
            return hidden @ head.T

    def losses(given):
        # losses are float32, so the step must be wide
        return Mixture(2.0, 0.6).losses(
            Predictor(given, Head()), Predictor(taught, torch.nn.Identity()), torch.tensor([0, 1, 2, 3])
        )

    assert torch.autograd.gradcheck(losses, states, eps=1e-2, atol=1e-3, rtol=1e-2)


def test_padding_of_a_vocabulary_does_not_count():
    """Where the teacher's logits are wider, the divergence is over the entries that both have."""
    student, teacher, targets = predictors(grad=False)
    wide = torch.nn.Linear(5, 14, bias=False)
    wide.weight.data[:11] = teacher.head.weight.data
    with torch.no_grad():
        narrow = Mixture().losses(student, teacher, targets)
        assert torch.allclose(narrow, Mixture().losses(student, Predictor(teacher.states, wide), targets))


# ---------------------------------------------------------------- whole jobs
@pytest.mark.parametrize(("direction", "adapter"), [("forward", FULL), ("reverse", FULL), ("forward", LORA)])
def test_the_student_comes_near_the_teacher(folders, tmp_path, recorder, direction, adapter):
    """On rows that it never saw the student's divergence from the teacher falls: to under half with every weight."""
    run(spec_of({"direction": direction}, adapter, n_epochs=12), folders, tmp_path, recorder)
    before, after = measured(recorder)
    assert after[MetricName.EVAL_KL] < (0.5 if adapter is FULL else 0.95) * before[MetricName.EVAL_KL]
    assert after[MetricName.EVAL_PERPLEXITY] > 1


def test_prompts_alone_are_texts(folders, tmp_path, new_recorder):
    """A job on prompts without answers is the job on the same texts, to the bit, and brings the student nearer."""
    spec, (student, teacher) = spec_of(n_epochs=4), folders
    texts = [json.loads(line)["text"] for line in rows(120).splitlines()[::2]]
    told = []
    for key in ("prompt", "text"):
        given = "\n".join(json.dumps({key: text}) for text in texts).encode()
        told.append(run_job(spec, student, tmp_path, new_recorder(), given, auxiliary=teacher))
    before, after = measured(told[0])
    assert after[MetricName.EVAL_KL] < before[MetricName.EVAL_KL]
    assert told[1].losses() == told[0].losses()


def test_a_prompt_that_is_no_text_is_refused(folders, tmp_path, recorder):
    """Messages have no text to compare over, so that as a bare prompt they are refused by number."""
    given = b'{"prompt": "user"}\n{"prompt": [{"role": "user", "content": "user"}]}'
    assert ((2, RowReason.WRONG_TYPE),) == refused(spec_of(), folders[0], tmp_path, recorder, given)


def test_measured_divergence_is_that_of_plain_models(folders, tmp_path, recorder):
    """The divergence before training is the one that transformers' own logits give, at temperature 1."""
    texts: list[dict[str, object]] = [{"text": " ".join(WORDS[n : n + 5])} for n in range(4)]
    evaluation = "\n".join(map(json.dumps, texts)).encode()
    run(spec_of({"temperature": 3.0}, max_steps=1), folders, tmp_path, recorder, evaluation=evaluation)
    student, teacher = (transformers.AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders)
    examples = language_model(load_tokenizer(str(folders[0])), 32, 1, CPU).read(texts)
    total, count = 0.0, 0
    for example in examples:
        assert isinstance(example, Example)
        ids = torch.tensor([example.tokens.tolist()])
        with torch.no_grad():
            q, p = (model(input_ids=ids).logits[0, :-1].log_softmax(-1) for model in (student, teacher))
        total += float(functional.kl_div(q, p, log_target=True, reduction="sum"))
        count += len(example.tokens) - 1
    assert total / count == pytest.approx(measured(recorder)[0][MetricName.EVAL_KL], abs=1e-5)


def test_a_teacher_may_be_an_adapter(folders, tmp_path, new_recorder):
    """A version with an adapter teaches as its base and adapter together: its own student starts at no divergence."""
    trained = run(spec_of(adapter=LORA), folders, tmp_path, new_recorder())
    same = (folders[0], folders[0])
    told = run(spec_of(max_steps=1), same, tmp_path, new_recorder(), auxiliary_layer=trained.bundles[-1])
    assert measured(told)[0][MetricName.EVAL_KL] > 1e-3
    bundle = trained.bundles[-1]
    spec = spec_of(adapter=LORA, max_steps=1)
    told = run(spec, same, tmp_path, new_recorder(), auxiliary_layer=bundle, layer=bundle)
    assert 0.0 == pytest.approx(measured(told)[0][MetricName.EVAL_KL], abs=1e-6)


@pytest.mark.parametrize("step", [3, 8])
def test_resume_is_exact_to_the_bit(folders, tmp_path, new_recorder, step):
    """A distillation stopped at a seeded step and resumed has the losses and the result of one that never stopped."""
    spec = spec_of({"share": 0.7, "temperature": 2.0}, {"lora": {"target_modules": ["q_proj"], "dropout": 0.1}})
    whole = run(spec, folders, tmp_path, new_recorder())
    first = new_recorder(pause_at=step)
    with pytest.raises(Paused) as paused:
        run(spec, folders, tmp_path, first)
    assert step == paused.value.step
    second = run(spec, folders, tmp_path, new_recorder(), checkpoint=first.bundles[0])
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]


# ---------------------------------------------------------------- refused
def test_a_teacher_of_other_tokens_is_refused(llama_dir, teacher_dir, tmp_path, recorder):
    """Teacher and student must have the very same tokens: MODEL_INVALID, before anything is trained."""
    other = tmp_path / "other"
    other.mkdir()
    for path in teacher_dir.iterdir():
        (other / path.name).write_bytes(path.read_bytes().replace(b"golf", b"polo"))
    with pytest.raises(TrainerError) as caught:
        run(spec_of(), (llama_dir, other), tmp_path, recorder)
    assert FailureCode.MODEL_INVALID == caught.value.code
    assert "tokenizer" in str(caught.value)
    assert [] == recorder.losses()


def test_a_teacher_with_too_few_positions_is_refused(llama_dir, tmp_path, recorder):
    """Rows longer than the teacher has positions for are MODEL_INVALID, with the length that it takes."""
    short = write_short(tmp_path / "short", llama_dir)
    with pytest.raises(TrainerError, match="max_seq_length 6"):
        run(spec_of(), (llama_dir, short), tmp_path, recorder)


def write_short(directory, source):
    directory.mkdir()
    write_llama(directory)
    config = json.loads((source / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 6}))
    return directory


def test_a_job_without_a_teacher_is_refused(llama_dir, tmp_path, recorder):
    """Without auxiliary_model the job is SPEC_INVALID, and says which field is missing."""
    with pytest.raises(SpecError) as caught:
        run(spec_of(), (llama_dir, ""), tmp_path, recorder)
    assert SpecField.AUXILIARY_MODEL == caught.value.field


@pytest.mark.parametrize("settings", [{"direction": "sideways"}, {"temperature": 0.0}, {"share": 1.5}])
def test_settings_out_of_range_are_refused(folders, tmp_path, recorder, settings):
    """A setting outside of the contract's range is SPEC_INVALID."""
    with pytest.raises(SpecError):
        run(spec_of(settings), folders, tmp_path, recorder)


def test_the_teacher_is_left_as_it_is(folders, tmp_path, new_recorder):
    """Equal jobs have equal results: the teacher neither learns nor touches the student's random numbers."""
    model = load_causal(str(folders[0]), CPU).model
    assert all(parameter.requires_grad for parameter in model.parameters())
    spec = spec_of(adapter={"lora": {"target_modules": ["q_proj"], "dropout": 0.2}}, max_steps=4)
    one, other = (run(spec, folders, tmp_path, new_recorder()) for _ in range(2))
    assert one.bundles[-1] == other.bundles[-1]
