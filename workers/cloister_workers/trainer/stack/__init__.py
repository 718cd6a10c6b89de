# SPDX-License-Identifier: Apache-2.0
"""The layers of a version above its base model, and what they make of a question.

encoder.py          texts -> unit vectors, by the job's auxiliary model
chunks.py           documents -> passages of so many tokens
index.py            passages and their vectors: search, and the files of the layer
demonstrations.py   examples that are shown, by which rule, and the files of the layer
composer.py         questions -> prompts with demonstrations and passages, within a budget of tokens
layers.py           a version's layers from a job's inputs, all or the first few
exam.py             the same rows asked of a base with any of the layers in force; what jobs about versions measure by
shots.py            rows as questions with answers, as they are asked and shown
questions.py        rows of a retrieval job: documents, and questions of which is known where their answers stand
reading.py          an input's rows by number
report.py           an evaluation's table, as a page and as numbers
"""
