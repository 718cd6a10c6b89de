# SPDX-License-Identifier: Apache-2.0
"""What causal supervised jobs measure on generated answers, what they take of chats, and how they cut."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest

from cloister_workers.errors import SpecError
from cloister_workers.messages import MetricName, RowReason
from cloister_workers.trainer.model import load_tokenizer
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.text_metrics import rouge_l, text_metrics
from tiny_models import WORDS, write_tokenizer
from trainer_jobs import job_spec, measured, refused, run_job

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def echo_rows(count: int, first: int = 0) -> bytes:
    """Two words, of which the answer repeats the first."""
    numbers = [37 * n % 100 for n in range(first, first + count)]
    pairs = [(WORDS[n % 10], WORDS[n // 10]) for n in numbers]
    return "\n".join(json.dumps({"prompt": f"{a} {b}", "completion": f" {a}"}) for a, b in pairs).encode()


def as_chats(rows: bytes) -> bytes:
    """The same rows as turns of a chat."""
    asked = [json.loads(line) for line in rows.splitlines()]
    turns = [[("user", row["prompt"]), ("assistant", row["completion"].strip())] for row in asked]
    chats = [{"messages": [{"role": role, "content": text} for role, text in pair]} for pair in turns]
    return "\n".join(map(json.dumps, chats)).encode()


@pytest.mark.parametrize("form", [bytes, as_chats])
def test_generated_answers_get_better(llama_dir, tmp_path, recorder, form):
    """A language model that learns to repeat a word does so on held-out pairs, by exact match and F1; of prompts and
    completions as of chats.
    """
    wanted = {"learning_rate": 0.01, "n_epochs": 40, "micro_batch_size": 8}
    spec = job_spec("supervised", {"metrics": "answer", "max_new_tokens": 4}, **wanted)
    told = run_job(spec, llama_dir, tmp_path, recorder, form(echo_rows(70)), evaluation=form(echo_rows(30, 70)))
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


def test_arguments_of_calls_reach_the_template_as_objects(llama_dir):
    """Arguments that are JSON in a text, as OpenAI's format has them, are what the template can look into; a call
    that the template cannot write, or that is no object, is a row error.
    """
    tokenizer = load_tokenizer(str(llama_dir), chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}{% for call in m['tool_calls'] or [] %}"
        "{{ call['function']['name'] }} {% for key in call['function']['arguments'] %}{{ key }} "
        "{{ call['function']['arguments'][key] }} {% endfor %}{{ call['function']['arguments'] | tojson | length }}"
        "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
    )

    def calling(call: object) -> Any:  # noqa: ANN401
        turns = [{"role": "user", "content": "alpha "}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        return read(ChatReader(tokenizer, 64), {"messages": turns})

    texts = []
    for arguments in ('{"hotel": "india"}', {"hotel": "india"}):
        made = calling({"function": {"name": "golf", "arguments": arguments}})
        texts.append(tokenizer.convert_ids_to_tokens(made.tokens.tolist()))
    assert texts[0] == texts[1]
    assert ["golf", "hotel", "india"] == texts[0][3:6]
    assert RowReason.TEMPLATE_REFUSED == calling({"function": {"name": "golf"}})
    assert RowReason.WRONG_TYPE == calling("golf")


def test_a_row_that_begins_with_its_answer_is_measured(llama_dir, tmp_path, recorder):
    """Where nothing stands before a learned turn its first token is given, and the rest is what is compared."""
    alone = json.dumps({"messages": [{"role": "assistant", "content": "alpha"}]}).encode()
    spec = job_spec("supervised", {"metrics": "text", "max_new_tokens": 4}, n_epochs=1)
    told = run_job(spec, llama_dir, tmp_path, recorder, as_chats(echo_rows(30)), evaluation=alone)
    before, after = measured(told)
    assert before.keys() == after.keys() >= {MetricName.EVAL_CHRF, MetricName.EVAL_BLEU, MetricName.EVAL_ROUGE_L}


def test_rows_beyond_the_positions_are_refused(tmp_path, recorder):
    """A row with more tokens than a GPT-2 has positions for is refused by its number, whatever max_seq_length says."""
    import transformers

    size = write_tokenizer(tmp_path)
    config = transformers.GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=16, eos_token_id=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    long = json.dumps({"prompt": " ".join(["alpha"] * 20), "completion": " bravo"}).encode()
    spec = job_spec("supervised", max_seq_length=512)
    rows = echo_rows(20) + b"\n" + long
    assert ((21, RowReason.TOO_LONG),) == refused(spec, tmp_path, tmp_path, recorder, rows)


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


def subsequences(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(some) for size in range(len(words) + 1) for some in combinations(words, size)}


def test_rouge_is_that_of_all_subsequences():
    """The longest common subsequence is the longest that stands in the sets of all subsequences of both texts."""
    draw = random.Random(5)
    for _ in range(30):
        said, right = (draw.choices("abcd", k=draw.randint(1, 7)) for _ in range(2))
        longest = max(map(len, subsequences(said) & subsequences(right)))
        expected = 100 * 2 * longest / (len(said) + len(right))
        assert expected == pytest.approx(rouge_l(" ".join(said), " ".join(right)), abs=1e-9)


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
