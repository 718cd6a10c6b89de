# SPDX-License-Identifier: Apache-2.0
"""Inference jobs: one line for each row in order, with what stood before a question and what the answer cites."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

from cloister_workers.errors import RowsRefused, SpecError
from cloister_workers.messages import MetricName, Progress, Reported, RowReason, SpecField
from cloister_workers.trainer.generation import Sampler
from copying_model import ANSWERS, ENTITIES, question
from stack_jobs import jsonl
from tiny_models import classification_rows

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
COLOURS = {entity: ANSWERS[(place * 7 + 3) % len(ANSWERS)] for place, entity in enumerate(ENTITIES[:24])}
DOCUMENTS = jsonl([{"id": entity, "text": f"{entity} is the colour {colour}"} for entity, colour in COLOURS.items()])
RETRIEVAL = {"retrieval": {"chunk_tokens": 16, "overlap": 2, "top_k": 2, "max_new_tokens": 4}}


def inference(**settings: object) -> dict[str, object]:
    return {"inference": {"batch_size": 5, "max_seq_length": 64, "max_new_tokens": 4, **settings}}


def lines(done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.files["predictions.jsonl"].splitlines()]


def test_answers_come_from_the_passages_and_name_them(bench):
    """With an index each row is answered from its documents, and the passages shown are listed by place."""
    index = bench.run({"retrieval": {**RETRIEVAL["retrieval"], "top_k": 1}}, training=DOCUMENTS).bundle
    rows = jsonl([{"question": question(entity)} for entity in COLOURS])
    done = bench.run(inference(), evaluation=b"\n" + rows, layer=index)
    found = lines(done)
    assert list(COLOURS.values()) == [line["answer"] for line in found]
    assert list(range(2, 26)) == [line["row"] for line in found]
    assert list(COLOURS) == [passage["document"] for line in found for passage in line["passages"]]
    length = len(f"e3 is the colour {COLOURS['e3']}")
    assert {"number": 1, "document": "e3", "start": 0, "end": length, "cited": False} == found[3]["passages"][0]
    progress = [message.step for message in done.recorder.messages if isinstance(message, Progress)]
    assert [5, 10, 15, 20, 24] == progress
    told = done.recorder.messages[-1]
    assert isinstance(told, Reported)
    assert (24, 24.0) == (told.rows, told.metrics[MetricName.EVAL_ROWS])


def test_citations_are_read_from_answers():
    """A passage counts as cited where the answer has its number in brackets, and only where it was shown."""
    from cloister_workers.trainer.stack.chunks import Chunk
    from cloister_workers.trainer.stack.composer import Composed
    from cloister_workers.trainer.stack.index import Index
    from cloister_workers.trainer.steps.inference import _answer

    chunks = tuple(Chunk(place, 0, 1, "x") for place in range(3))
    index = Index(("a", "b", "c"), chunks, torch.zeros(3, 2, dtype=torch.float16), "", 3, {})
    line: Any = _answer("so it is [2], and [7]", Composed("p", chunks=(2, 0)), index)
    assert [("c", False), ("a", True)] == [(found["document"], found["cited"]) for found in line["passages"]]


def test_greedy_answers_equal_those_of_transformers(bench, copier_dir):
    """At temperature 0 the tokens are those that transformers' own generate takes, prompts of many lengths mixed."""
    prompts = [f"e{place} noise {'colour ' * (place % 4)}of e{place + 1} ?\nAnswer:" for place in range(9)]
    done = bench.run(inference(max_new_tokens=6), evaluation=jsonl([{"prompt": prompt} for prompt in prompts]))
    model = transformers.AutoModelForCausalLM.from_pretrained(copier_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(copier_dir)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        expected.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
    assert expected == [line["answer"] for line in lines(done)]


def test_a_sequence_to_sequence_model_answers_as_transformers_has_it():
    """Answers of an encoder-decoder are the tokens that transformers' own generate takes, one prompt at a time."""
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, eos_token_id=1
    )
    torch.manual_seed(4)
    model = transformers.T5ForConditionalGeneration(config).eval()

    class Spelling:
        eos_token_id = 1
        pad_token_id = 0

        def decode(self, tokens, **_):
            return " ".join(map(str, tokens))

    prompts = [[5, 9, 30, 1], [7, 1], [8, 8, 2, 1], [39, 20, 11, 12, 1]]
    sampler = Sampler(model, Spelling(), torch.device("cpu"), lambda: None, 5)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        expected.append(" ".join(str(token) for token in made[0, 1:].tolist() if token != 1))
    assert expected == sampler.continued(prompts, 6)


def test_sampling_hangs_on_the_seed_and_the_prompt_alone(bench):
    """Drawn answers are the same in every run and in every company, and differ from the likeliest ones."""
    rows = [{"prompt": f"noise {entity}"} for entity in ENTITIES[:12]]
    drawn = lines(bench.run(inference(temperature=2.0), evaluation=jsonl(rows)))
    again = lines(bench.run(inference(temperature=2.0, batch_size=1), evaluation=jsonl(rows[::-1])))
    assert [line["answer"] for line in drawn] == [line["answer"] for line in again[::-1]]
    likeliest = lines(bench.run(inference(), evaluation=jsonl(rows)))
    assert [line["answer"] for line in drawn] != [line["answer"] for line in likeliest]


def test_demonstrations_stand_in_the_prompt(bench):
    """A version with demonstrations answers as they do, and says how many were shown."""
    shown = {"in_context": {"selection": "random", "shots": 2, "max_seq_length": 100, "max_new_tokens": 4}}
    rows = jsonl([{"question": question(entity), "answer": "a6"} for entity in ENTITIES[:9]])
    layer = bench.run(shown, {"evaluation_fraction": 0.2}, training=rows).bundle
    found = lines(bench.run(inference(), evaluation=jsonl([{"question": question("e30")}]), layer=layer))
    assert [("a6", 2, 0)] == [(line["answer"], line["demonstrations"], line["dropped"]) for line in found]


def test_classes_and_their_probabilities(bert_dir, bench, tmp_path, new_recorder):
    """A classifier gives for each text the class and probabilities that plain peft and transformers give."""
    import peft

    tuned = type(bench)(bert_dir, tmp_path, new_recorder)
    settings = {"n_epochs": 2, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02}
    done = tuned.run({"classification": {"hyperparameters": settings}}, training=classification_rows(60))
    texts = [json.loads(line)["text"] for line in classification_rows(12).splitlines()]
    answered = tuned.run(
        inference(task="classify"), evaluation=jsonl([{"text": text} for text in texts]), layer=done.bundle
    )
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in done.files.items():
        (folder / name).write_bytes(content)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(bert_dir, num_labels=3)
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = ["alpha", "bravo", "charlie"]
    for text, line in zip(texts, lines(answered), strict=True):
        batch = tokenizer(text, return_tensors="pt")
        chances = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.softmax(-1)[0]
        assert names[int(chances.argmax())] == line["label"]
        assert chances.tolist() == pytest.approx([line["probabilities"][name] for name in names], abs=1e-5)
    with pytest.raises(SpecError) as caught:
        tuned.run(inference(task="classify"), evaluation=jsonl([{"text": "alpha"}]))
    assert SpecField.TASK == caught.value.field


def test_a_row_has_the_same_answer_beside_any_other(bert_dir, bench, tmp_path, new_recorder):
    """A pair keeps its second text beside a row without one, and a text beyond the model's positions is cut."""
    tuned = type(bench)(bert_dir, tmp_path, new_recorder)
    settings = {"n_epochs": 2, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02}
    rows = jsonl([json.loads(line) | {"text_pair": "delta echo"} for line in classification_rows(60).splitlines()])
    version = tuned.run({"classification": {"hyperparameters": settings}}, training=rows).bundle

    def answers(*asked):
        found = tuned.run(inference(task="classify", max_seq_length=1024), evaluation=jsonl(asked), layer=version)
        return [line["probabilities"] for line in lines(found)]

    pair = {"text": "alpha golf", "text_pair": "delta bravo"}
    (alone,) = answers(pair)
    beside, _ = answers(pair, {"text": "alpha " * 200})
    assert alone == pytest.approx(beside, abs=1e-6)
    assert alone != pytest.approx(answers({"text": "alpha golf"})[0], abs=1e-4)


def test_vectors_are_those_of_the_encoder(bench, word_encoder_dir, tmp_path, new_recorder):
    """An encoder gives each text the mean of its tokens' states, at length 1."""
    asked = type(bench)(word_encoder_dir, tmp_path, new_recorder)
    (line,) = lines(asked.run(inference(task="embed"), evaluation=jsonl([{"text": "e1 is the colour"}])))
    tokenizer = transformers.AutoTokenizer.from_pretrained(word_encoder_dir)
    batch = tokenizer("e1 is the colour", return_tensors="pt")
    states = transformers.AutoModel.from_pretrained(word_encoder_dir)(input_ids=batch["input_ids"]).last_hidden_state
    expected = torch.nn.functional.normalize(states[0].mean(0), dim=0)
    assert expected.tolist() == pytest.approx(line["vector"], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "rows", "errors"),
    [
        (
            {},
            [{"prompt": "e1 " * 61}, {"prompt": "e1"}, {}, {"messages": "e1"}, {"prompt": 3}],
            [(1, RowReason.TOO_LONG), (3, RowReason.MISSING_KEY), (4, RowReason.WRONG_TYPE), (5, RowReason.WRONG_TYPE)],
        ),
        ({"task": "embed"}, [{"text": "e1"}, {"text": " "}], [(2, RowReason.EMPTY_TEXT)]),
    ],
)
def test_rows_that_cannot_be_asked_are_refused_by_number(bench, new_recorder, settings, rows, errors):
    """Rows that hold no question, or one that leaves no room for an answer, are refused with their numbers."""
    recorder = new_recorder()
    with pytest.raises(RowsRefused):
        type(bench)(bench.model, bench.scratch, lambda: recorder).run(inference(**settings), evaluation=jsonl(rows))
    assert tuple(errors) == recorder.messages[-1].errors
