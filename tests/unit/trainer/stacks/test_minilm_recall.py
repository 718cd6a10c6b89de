# SPDX-License-Identifier: Apache-2.0
"""A real encoder finds passages by their sense, which one with random weights does not."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

from cloister_dev.demo import minilm_directory
from cloister_workers.messages import MetricName
from stack_jobs import Bench, jsonl

FACTS = [
    (
        "leave",
        "Staff may take twenty-eight days off a year, and must ask their lead a fortnight ahead.",
        "How much holiday do I get?",
    ),
    (
        "travel",
        "Journeys by rail are booked in standard class; receipts go to finance within a month.",
        "Which train ticket may I buy for work?",
    ),
    (
        "badge",
        "A lost pass is blocked by reception at once, who print another on the same day.",
        "I cannot find my door card, what now?",
    ),
    (
        "printer",
        "Toner stands in the cupboard on floor two; call facilities when it runs out.",
        "Where is ink for printing kept?",
    ),
    (
        "parking",
        "Bays behind the building are for visitors; employees leave their cars in the garage.",
        "Where can I put my vehicle?",
    ),
    (
        "sick",
        "Whoever is ill calls before nine, and brings a doctor's note from the third day.",
        "What do I do when I have a fever?",
    ),
    (
        "laptop",
        "Computers are replaced every four years; broken ones are swapped at the service desk.",
        "My notebook's screen is cracked.",
    ),
    (
        "password",
        "Secrets have sixteen characters or more and never leave the manager.",
        "How long must my login credentials be?",
    ),
    (
        "kitchen",
        "Milk and coffee are free; the dishwasher runs at six in the evening.",
        "Do I have to pay for drinks?",
    ),
    (
        "fire",
        "At the siren everybody walks to the meadow across the road and waits to be counted.",
        "Where do we gather in an alarm?",
    ),
    (
        "salary",
        "Wages arrive on the twenty-fifth; slips are in the portal.",
        "When will I be paid?",
    ),
    (
        "remote",
        "Two days a week may be worked from home, agreed with the team.",
        "Can I stay at home and work?",
    ),
    (
        "guest",
        "Visitors sign the book and are met at the front desk by their host.",
        "A customer is coming, what do they do on arrival?",
    ),
    (
        "pension",
        "The firm adds five per cent of pay to what is saved for retirement.",
        "What does the company put aside for my old age?",
    ),
    (
        "training",
        "Each person has a thousand euros a year for courses and books.",
        "Is there a budget for learning?",
    ),
    (
        "phone",
        "Mobiles of the house may be used privately within the country.",
        "May I call my family with the work handset?",
    ),
]
"""Name, document, question: the question shares no word of weight with its document."""
DOCUMENTS = jsonl([{"id": name, "text": text} for name, text, _ in FACTS])
QUESTIONS = jsonl([{"question": asked, "relevant": name} for name, _, asked in FACTS])
RETRIEVAL = {"retrieval": {"chunk_tokens": 64, "overlap": 8, "top_k": 3}}


def write_random_twin(folder: Path) -> Path:
    """The same architecture and tokenizer with random weights."""
    config = transformers.AutoConfig.from_pretrained(minilm_directory())
    torch.manual_seed(1)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm_directory()).save_pretrained(folder)
    return folder


def test_recall_is_that_of_an_encoder_that_understands(tmp_path, new_recorder, bert_dir):
    """MiniLM finds paraphrased questions' documents, with an interval above that of its random twin."""
    found = {}
    for name, folder in (("minilm", minilm_directory()), ("random", write_random_twin(tmp_path / "twin"))):
        done = Bench(bert_dir, tmp_path, new_recorder, folder).run(RETRIEVAL, training=DOCUMENTS, evaluation=QUESTIONS)
        found[name] = done.phases()["after", 0]
        assert json.loads(done.files["retrieval.json"])["top_k"] == 3
    better, worse = found["minilm"], found["random"]
    assert better[MetricName.EVAL_RECALL_AT_K_CI_LOW] > worse[MetricName.EVAL_RECALL_AT_K_CI_HIGH]
    assert better[MetricName.EVAL_RECALL_AT_1] > worse[MetricName.EVAL_RECALL_AT_1]
    assert better[MetricName.EVAL_MRR] > worse[MetricName.EVAL_MRR]
    assert 16.0 == better[MetricName.EVAL_ROWS]
