# SPDX-License-Identifier: Apache-2.0
"""The causal subject against plain calls of transformers, one sentence at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.trainer.attention import NAME, register
from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.subjects.causal import CausalSubject
from tiny_language_models import byte_pairs, gpt2, llama, whole_words

TEXTS = (
    "the janitor met the accountant because she was late",
    "he was early",
    "a nurse works here and there, and a carpenter does not",
    "nobody knows",
    "late",
)
MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "one token begins and ends": lambda: _pair(byte_pairs(TEXTS), gpt2),
    "a beginning is put before": lambda: _pair(byte_pairs(TEXTS, beginning=True), llama),
    "no special token": lambda: _pair(whole_words(" ".join(TEXTS).replace(",", " ,").split(), masked=False), llama),
}


def _pair(tokenizer, model: Callable[[Any], Any]) -> tuple[Any, Any]:
    return tokenizer, model(tokenizer)


def _subject(tokenizer, model, **settings) -> CausalSubject:
    return CausalSubject(model, tokenizer, torch.device("cpu"), settings.pop("poll", lambda: None), **settings)


def _plain(model, ids: list[int]) -> FloatArray:
    """Log-probabilities of ids[1:], by one plain call in double precision."""
    model.eval()
    with torch.no_grad():
        table = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return np.array([float(table[place, token]) for place, token in enumerate(ids[1:])])


def _greedy(model, ids: list[int], count: int) -> list[int]:
    """The tokens that transformers' own greedy search adds."""
    model.eval()
    prompt = torch.tensor([ids])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return [int(token) for token in made[0, len(ids) :]]


@pytest.mark.parametrize("habit", MODELS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_token_log_probs_equal_plain_calls(habit: str, batch_size: int) -> None:
    """Each token is given the text before it, and the first one what the tokenizer's habit gives to begin with."""
    tokenizer, model = MODELS[habit]()
    found = _subject(tokenizer, model, batch_size=batch_size).token_log_probs(TEXTS)
    for text, values in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if habit == "one token begins and ends":
            end = tokenizer.eos_token_id
            expected = np.concatenate([_plain(model, [end, ids[0]]), _plain(model, ids)])
        elif habit == "a beginning is put before":
            expected = _plain(model, [tokenizer.bos_token_id, *ids])
        else:
            expected = _plain(model, ids)
        np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("habit", MODELS)
def test_completions_equal_the_end_of_a_plain_call(habit: str) -> None:
    """Prompt and completion are tokenised as one text, and the completion's tokens are the last of it."""
    tokenizer, model = MODELS[habit]()
    pairs = [("the janitor met", " the accountant"), ("a nurse works here", " and there, and"), ("he was", " early")]
    found = _subject(tokenizer, model, batch_size=2).completion_log_probs(pairs)
    for (prompt, completion), values in zip(pairs, found, strict=True):
        ids = tokenizer(prompt + completion)["input_ids"]
        count = len(tokenizer(completion, add_special_tokens=False)["input_ids"])
        np.testing.assert_allclose(values, _plain(model, ids)[-count:], atol=1e-5)


def test_a_token_across_the_boundary_belongs_to_the_completion() -> None:
    """Where the prompt ends in a space that is part of the next token, that whole token is the completion's."""
    tokenizer, model = MODELS["one token begins and ends"]()
    subject = _subject(tokenizer, model)
    with_space, without = subject.completion_log_probs([("the janitor ", "met the"), ("the janitor", " met the")])
    np.testing.assert_allclose(with_space, without, rtol=1e-6)
    assert len(without) == 2


@pytest.mark.parametrize("habit", MODELS)
def test_an_empty_prompt_is_the_start_of_a_text(habit: str) -> None:
    """All tokens are then given the start token too; without any the first one is left out."""
    tokenizer, model = MODELS[habit]()
    (values,) = _subject(tokenizer, model).completion_log_probs([("", TEXTS[0])])
    start = {"one token begins and ends": [0], "a beginning is put before": [1], "no special token": []}[habit]
    expected = _plain(model, [*start, *tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]])
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_long_texts_are_cut() -> None:
    """A text loses its end, and a prompt its beginning, so that the completion is still asked for."""
    tokenizer, model = MODELS["a beginning is put before"]()
    subject = _subject(tokenizer, model, max_seq_length=6)
    ids = tokenizer(TEXTS[0])["input_ids"]
    (values,) = subject.token_log_probs(TEXTS[:1])
    np.testing.assert_allclose(values, _plain(model, ids[:6]), atol=1e-5)
    (ends,) = subject.completion_log_probs([(TEXTS[0][: -len(" late")], " late")])
    np.testing.assert_allclose(ends, _plain(model, [ids[0], *ids[-5:]])[-len(ends) :], atol=1e-5)


def test_no_text_is_longer_than_the_position_table() -> None:
    """A model with learned positions is never asked for more of them than it has."""
    tokenizer = byte_pairs(TEXTS)
    subject = _subject(tokenizer, gpt2(tokenizer, positions=8))
    assert [len(values) for values in subject.token_log_probs(["late " * 30, "he"])] == [8, 1]
    assert len(subject.continue_texts(["late " * 30], 4)) == 1


def test_packed_attention_is_set_aside_and_put_back() -> None:
    """A model that was loaded with our packed attention gives the likelihoods of the plain one, and keeps its own."""
    tokenizer, model = MODELS["a beginning is put before"]()
    expected = _subject(tokenizer, model).token_log_probs(TEXTS)
    register()
    model.set_attn_implementation(NAME)
    found = _subject(tokenizer, model, batch_size=2).token_log_probs(TEXTS)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert model.config._attn_implementation == NAME


def test_nothing_of_model_or_random_state_is_changed() -> None:
    """Dropout is off while measuring; afterwards each module's mode and torch's random state are as they were."""
    tokenizer, model = MODELS["one token begins and ends"]()
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    subject = _subject(tokenizer, model)
    first = (subject.token_log_probs(TEXTS), subject.continue_texts(TEXTS[:2], 4))
    again = (subject.token_log_probs(TEXTS), subject.continue_texts(TEXTS[:2], 4))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert first[1] == again[1]
    np.testing.assert_array_equal(np.concatenate(first[0]), np.concatenate(again[0]))


def test_poll_may_stop_before_any_forward_pass() -> None:
    """What poll raises comes out, no forward pass follows, and the model is left as it was."""
    tokenizer, model = MODELS["one token begins and ends"]()
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))

    def poll() -> None:
        if len(calls) == 2:
            raise InterruptedError

    model.train()
    with pytest.raises(InterruptedError):
        _subject(tokenizer, model, poll=poll, batch_size=1).token_log_probs(TEXTS)
    assert len(calls) == 2
    assert model.training


@pytest.mark.parametrize("habit", MODELS)
def test_continuations_equal_greedy_generation(habit: str) -> None:
    """Prompts in batches are continued as transformers' own greedy search continues each alone."""
    tokenizer, model = MODELS[habit]()
    prompts = [*TEXTS, "the janitor met", "she was"]
    found = _subject(tokenizer, model, batch_size=2).continue_texts(prompts, 6)
    for prompt, text in zip(prompts, found, strict=True):
        made = _greedy(model, tokenizer(prompt)["input_ids"], 6)
        assert text == tokenizer.decode(made, skip_special_tokens=True)


def test_a_continuation_ends_at_the_end_of_text() -> None:
    """Nothing after the end-of-text token is kept, while other prompts of the batch go on."""
    tokenizer, model = MODELS["one token begins and ends"]()
    subject = _subject(tokenizer, model)
    prompts = ["he", "she", "a", "the", "late"]
    open_ended = [_greedy(model, tokenizer(prompt)["input_ids"], 6) for prompt in prompts]
    ending = next(
        token for made in open_ended for token in made if 0 < sum(token in other for other in open_ended) < len(prompts)
    )
    model.generation_config.eos_token_id = [ending]
    expected = [made[: made.index(ending)] if ending in made else made for made in open_ended]
    assert subject.continue_texts(prompts, 6) == [tokenizer.decode(made) for made in expected]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft still asks by the old name
def test_an_adapter_takes_part() -> None:
    """A peft model is measured with its adapter, whichever attention its base was loaded with."""
    import peft

    tokenizer, base = MODELS["a beginning is put before"]()
    plain = np.concatenate(_subject(tokenizer, base).token_log_probs(TEXTS))
    register()
    base.set_attn_implementation(NAME)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted = np.concatenate(_subject(tokenizer, model).token_log_probs(TEXTS))
    assert np.abs(adapted - plain).max() > 0.01
    with model.disable_adapter():
        np.testing.assert_allclose(np.concatenate(_subject(tokenizer, model).token_log_probs(TEXTS)), plain, atol=1e-5)


@pytest.mark.parametrize("head", ["its own", "none"])
def test_logits_are_computed_where_they_are_needed(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts cost no logits where the head is a module, and answers are the same where it is none."""
    tokenizer, model = MODELS["a beginning is put before"]()
    pairs = [("the janitor met the", " accountant"), ("a nurse works here and", " there, and a carpenter")]
    expected = [_plain(model, tokenizer(one + two)["input_ids"]) for one, two in pairs]
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda _, args, out: widths.append(out.shape[1]))
    if head == "none":
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    found = _subject(tokenizer, model).completion_log_probs(pairs)
    for values, whole in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, whole[-len(values) :], atol=1e-5)
    longest = max(len(whole) for whole in expected) + 1
    shortest_prompt = min(len(whole) + 1 - len(values) for values, whole in zip(found, expected, strict=True))
    assert widths == [longest if head == "none" else longest - shortest_prompt + 1]


def test_no_text_needs_no_forward_pass() -> None:
    """Empty questions have empty answers."""
    tokenizer, model = MODELS["no special token"]()
    subject = _subject(tokenizer, model, poll=lambda: pytest.fail("asked the model"))
    assert subject.token_log_probs([]) == []
    assert subject.completion_log_probs([]) == []
    assert subject.continue_texts([], 3) == []
    assert [len(values) for values in subject.token_log_probs(["late"])] == [0]
