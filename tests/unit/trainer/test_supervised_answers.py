# SPDX-License-Identifier: Apache-2.0
"""What causal supervised jobs measure on generated answers, what they take of chats, and how they cut."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from cloister_workers.errors import SpecError
from cloister_workers.messages import MetricName, RowReason
from cloister_workers.trainer.model import load_tokenizer
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.text_metrics import rouge_l, text_metrics
from tiny_models import WORDS
from trainer_jobs import job_spec, measured, run_job

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def echo_rows(count: int, first: int = 0) -> bytes:
    """Two words, of which the answer repeats the first."""
    numbers = [37 * n % 100 for n in range(first, first + count)]
    pairs = [(WORDS[n % 10], WORDS[n // 10]) for n in numbers]
    return "\n".join(json.dumps({"prompt": f"{a} {b}", "completion": f" {a}"}) for a, b in pairs).encode()


def test_generated_answers_get_better(llama_dir, tmp_path, recorder):
    """A language model that learns to repeat a word does so on held-out pairs, by exact match and F1."""
    wanted = {"learning_rate": 0.01, "n_epochs": 40, "micro_batch_size": 8}
    spec = job_spec("supervised", {"metrics": "answer", "max_new_tokens": 4}, **wanted)
    told = run_job(spec, llama_dir, tmp_path, recorder, echo_rows(70), evaluation=echo_rows(30, 70))
    before, after = measured(told)
    assert after[MetricName.EVAL_EXACT_MATCH_CI_LOW] > before[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    assert after[MetricName.EVAL_F1] > before[MetricName.EVAL_F1]


def test_metrics_are_of_a_closed_list():
    """Another word for metrics is refused when the objective is made."""
    from cloister_workers.trainer.objectives.supervised import Settings
    from cloister_workers.trainer.spec import read_settings

    with pytest.raises(SpecError):
        read_settings(Settings, {"metrics": "vibes"})


def read(reader: ChatReader, row: Mapping[str, object]) -> Any:  # noqa: ANN401 - an example, or a reason
    """What the reader makes of a row."""
    return reader.read(dict(row))


@pytest.fixture
def reader(llama_dir):
    return ChatReader(load_tokenizer(str(llama_dir), chat=True), 12)


def test_source_and_target_are_prompt_and_answer(reader):
    """A causal model learns the target after its source."""
    made = read(reader, {"source": "alpha", "target": "bravo"})
    words = reader.tokenizer.convert_ids_to_tokens(made.tokens.tolist())
    assert ["bravo", "[EOS]"] == [word for word, mark in zip(words, made.learned, strict=True) if mark]


def test_turns_of_weight_zero_are_not_learned(reader):
    """An assistant turn with weight 0 stands in the text and is no target."""
    turns = [("user", "alpha", 1), ("assistant", "bravo", 0), ("user", "golf", 1), ("assistant", "echo", 1)]
    messages = [{"role": role, "content": text, "weight": weight} for role, text, weight in turns]
    made = read(ChatReader(reader.tokenizer, 64), {"messages": messages})
    words = reader.tokenizer.convert_ids_to_tokens(made.tokens.tolist())
    assert ["echo", "[EOS]"] == [word for word, mark in zip(words, made.learned, strict=True) if mark]
    none = [{**message, "weight": 0} for message in messages]
    assert RowReason.NO_COMPLETION == read(reader, {"messages": none})


def test_tools_and_calls_reach_the_template(llama_dir):
    """What tools a chat has, and which one a turn calls, is what the template gets; a turn that calls may be silent."""
    tokenizer = load_tokenizer(str(llama_dir), chat=True)
    tokenizer.chat_template = (
        "{% for tool in tools or [] %}{{ tool['name'] }} {% endfor %}{% for m in messages %}{{ m['role'] }} "
        "{{ m['content'] }}{% for call in m['tool_calls'] or [] %}{{ call['name'] }} {% endfor %}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    messages = [
        {"role": "user", "content": "alpha "},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "golf"}]},
        {"role": "tool", "content": "hotel ", "name": "golf"},
        {"role": "assistant", "content": "echo "},
    ]
    made = read(ChatReader(tokenizer, 64), {"messages": messages, "tools": [{"name": "foxtrot"}]})
    words = tokenizer.convert_ids_to_tokens(made.tokens.tolist())
    assert "foxtrot" == words[0]
    assert ["golf", "[EOS]", "echo", "[EOS]"] == [w for w, mark in zip(words, made.learned, strict=True) if mark]
    assert RowReason.WRONG_TYPE == read(ChatReader(tokenizer, 64), {"messages": messages, "tools": "foxtrot"})


def test_a_long_prompt_loses_its_beginning(reader):
    """With truncate a row that is too long loses tokens from the left, never one that is learned."""
    row = {"prompt": " ".join(["alpha"] * 20), "completion": " bravo echo"}
    assert RowReason.TOO_LONG == read(reader, row)
    cut = ChatReader(reader.tokenizer, 12, truncate=True)
    made = read(cut, row)
    assert (12, True) == (len(made.tokens), made.truncated)
    assert 3 == sum(made.learned)
    long = {"prompt": "alpha", "completion": " " + " ".join(["bravo"] * 20)}
    assert RowReason.TOO_LONG == read(cut, long)


def test_rouge_by_hand():
    """The longest common subsequence of words, over both lengths."""
    assert 100.0 == rouge_l("The cat sat", "the cat sat")
    assert 100 * 2 * 2 / 6 == pytest.approx(rouge_l("a b c", "a x c"))
    assert (0.0, 100.0) == (rouge_l("", "a"), rouge_l("", ""))


def test_the_interval_of_chrf_is_that_of_the_library():
    """chrF is sacrebleu's, and so is that of any draw of rows: all rows alike give an interval of no width."""
    from sacrebleu.metrics.chrf import CHRF

    said, right = ["the cat sat on the mat", "hello world"], [["the cat sat on a mat"], ["hello there world"]]
    found = text_metrics(said, right)
    assert CHRF().corpus_score(said, [[one[0] for one in right]]).score == found[MetricName.EVAL_CHRF]
    assert found[MetricName.EVAL_CHRF_CI_LOW] < found[MetricName.EVAL_CHRF] < found[MetricName.EVAL_CHRF_CI_HIGH]
    same = text_metrics(said[:1] * 4, right[:1] * 4)
    alone = CHRF().sentence_score(said[0], right[0]).score
    assert (alone, alone) == pytest.approx((same[MetricName.EVAL_CHRF_CI_LOW], same[MetricName.EVAL_CHRF_CI_HIGH]))


def write_byte_pairs(directory) -> int:
    """A byte-level tokenizer of the words of these tests; returns the size of its vocabulary."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(
        [f"{a} {b}" for a in WORDS for b in WORDS], 400, special_tokens=["[PAD]", "[UNK]", "[EOS]"]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, pad_token="[PAD]", eos_token="[EOS]")
    fast.save_pretrained(directory)
    return len(fast)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma", "gpt2"])
def test_families_learn(family, tmp_path, recorder):
    """A tiny random model of each family of causal models lowers the loss of its training rows."""
    import transformers

    from tiny_models import write_tokenizer

    # Qwen2's tokenizer is rebuilt from byte pairs whatever the folder's file holds
    size = write_byte_pairs(tmp_path) if family == "qwen2" else write_tokenizer(tmp_path)
    shared = {"vocab_size": size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128, "head_dim": 8}
    if family == "gpt2":
        shared = {"vocab_size": size, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
        more = {}
    config = transformers.AutoConfig.for_model(
        family, **shared, **more, pad_token_id=0, bos_token_id=None, eos_token_id=2
    )
    torch.manual_seed(7)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    adapter = {"lora": {"target_modules": ["all-linear"]}}
    told = run_job(
        job_spec("supervised", learning_rate=0.01, n_epochs=4, adapter=adapter),
        tmp_path,
        tmp_path,
        recorder,
        echo_rows(60),
    )
    before, after = measured(told)
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
