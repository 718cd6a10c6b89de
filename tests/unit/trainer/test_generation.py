# SPDX-License-Identifier: Apache-2.0
"""What models answer: the tokens of transformers' own generate, whatever stands beside, and nothing is disturbed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from cloister_workers.errors import Cancelled
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.attention import NAME
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.model import Base, load_causal, load_sequence_to_sequence, load_tokenizer
from cloister_workers.trainer.spec import Lora
from tiny_models import WORDS
from tiny_seq2seq import FROM, write_bart, write_t5

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
MOST = 8


@pytest.fixture(scope="module")
def t5_dir(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def bart_dir(tmp_path_factory):
    return write_bart(tmp_path_factory.mktemp("bart"))


def adapted(base: Base, *targets: str) -> Any:  # noqa: ANN401 - a PeftModel
    """With an adapter that changes what the model says: peft's fresh ones change nothing."""
    model = attach_lora(base, Lora(target_modules=targets))
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def prompts_of(tokenizer: Any, words: list[str]) -> list[list[int]]:  # noqa: ANN401
    """Prompts of one to seven words, several of each length."""
    texts = [" ".join(words[(3 * n + step * n) % 10] for step in range(1 + n % 7)) for n in range(15)]
    return [tokenizer(text)["input_ids"] for text in texts]


def generated(model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[str]:  # noqa: ANN401
    """Greedy answers of transformers, each prompt alone."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=MOST, do_sample=False, num_beams=1)
        answer = made[0] if model.config.is_encoder_decoder else made[0, len(prompt) :]
        found.append(tokenizer.decode(answer, skip_special_tokens=True).strip())
    return found


def test_packed_models_with_adapters_answer_as_transformers_has_it(llama_dir):
    """A model with packed attention and an adapter has the answers of its twin with torch's own attention, and
    afterwards its attention, mode and torch's random state are as they were.
    """
    tokenizer = load_tokenizer(str(llama_dir))
    ours, theirs = (adapted(load_causal(str(llama_dir), CPU), "q_proj", "v_proj", "down_proj") for _ in range(2))
    theirs.get_base_model().set_attn_implementation("sdpa")
    ours.train()
    before, prompts = torch.get_rng_state(), prompts_of(tokenizer, WORDS)
    answers = Sampler(ours, tokenizer, CPU, lambda: None).continued(prompts, MOST)
    assert generated(theirs.eval(), tokenizer, prompts) == answers
    assert len(set(answers)) > 5
    assert (NAME, True) == (ours.get_base_model().config._attn_implementation, ours.training)
    assert torch.equal(before, torch.get_rng_state())


def test_encoder_decoders_with_adapters_answer_as_transformers_has_it(t5_dir):
    """A T5 with an adapter has transformers' answers."""
    model = adapted(load_sequence_to_sequence(str(t5_dir), CPU), "q", "v", "wo").eval()
    tokenizer = load_tokenizer(str(t5_dir), padded=True)
    prompts = prompts_of(tokenizer, FROM)
    answers = Sampler(model, tokenizer, CPU, lambda: None).continued(prompts, MOST)
    assert generated(model, tokenizer, prompts) == answers
    assert len(set(answers)) > 2


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("kind", ["causal", "t5"])
def test_answers_do_not_hang_on_company(llama_dir, t5_dir, kind, temperature):
    """A prompt alone has the answer that it has among many, drawn ones too, and in any order."""
    if kind == "causal":
        model, tokenizer = load_causal(str(llama_dir), CPU).model, load_tokenizer(str(llama_dir))
    else:
        model = load_sequence_to_sequence(str(t5_dir), CPU).model
        tokenizer = load_tokenizer(str(t5_dir), padded=True)
    prompts = prompts_of(tokenizer, WORDS if kind == "causal" else FROM)
    sampler = Sampler(model, tokenizer, CPU, lambda: None, seed=4, temperature=temperature)
    together = sampler.continued(prompts, MOST)
    assert [sampler.continued([prompt], MOST)[0] for prompt in prompts] == together
    assert together[::-1] == sampler.continued(prompts[::-1], MOST)


def test_the_first_token_may_be_forced(bart_dir):
    """A BART whose configuration forces the beginning-of-text token has transformers' answers."""
    model: Any = load_sequence_to_sequence(str(bart_dir), CPU).model.eval()
    tokenizer = load_tokenizer(str(bart_dir), padded=True)
    prompts = prompts_of(tokenizer, FROM)
    plain = Sampler(model, tokenizer, CPU, lambda: None).continued(prompts, MOST)
    with torch.no_grad():
        model.final_logits_bias[0, 1] = -1e4  # so that answers are long enough to tell
    model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids("t7")
    forced = Sampler(model, tokenizer, CPU, lambda: None).continued(prompts, MOST)
    assert generated(model, tokenizer, prompts) == forced
    assert {"t7"} == {answer.split()[0] for answer in forced}
    assert plain != forced


def test_answers_end_where_positions_do(bart_dir, tmp_path):
    """A model that never ends its answer says as many tokens as its decoder has positions for."""
    bart: Any = load_sequence_to_sequence(str(bart_dir), CPU).model
    with torch.no_grad():
        bart.final_logits_bias[0, :4] = -1e4
    tokenizer = load_tokenizer(str(bart_dir), padded=True)
    (answer,) = Sampler(bart, tokenizer, CPU, lambda: None).continued([tokenizer("f1 f2")["input_ids"]], 500)
    assert 64 == len(answer.split())

    config = transformers.GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2, n_positions=12)
    model = transformers.GPT2LMHeadModel(config)
    model.lm_head = torch.nn.Linear(16, 24, bias=True)
    with torch.no_grad():
        model.lm_head.bias[:4] = -1e4
    model.generation_config.eos_token_id = None
    (answer,) = Sampler(model, tokenizer, CPU, lambda: None).continued([[5, 6, 7]], 500)
    assert 12 - 3 + 1 == len(answer.split())


def test_a_stop_comes_before_the_next_token(llama_dir):
    """What is called before each forward pass may raise, and the attention is put back all the same."""
    model: Any = load_causal(str(llama_dir), CPU).model
    calls = iter(range(9))

    def poll() -> None:
        if next(calls) == 2:
            raise Cancelled(0)

    with pytest.raises(Cancelled):
        Sampler(model, load_tokenizer(str(llama_dir)), CPU, poll).continued([[5, 6]], MOST)
    assert 3 == next(calls)
    assert NAME == model.config._attn_implementation
