# SPDX-License-Identifier: Apache-2.0
"""The layers of a version above its base model, and what they make of a question.

encoder.py          texts -> unit vectors, by the job's auxiliary model
chunks.py           documents -> passages of so many tokens
index.py            passages and their vectors: search, and the files of the layer
demonstrations.py   examples that are shown, by which rule, and the files of the layer
prompts.py          questions -> prompts with demonstrations and passages, within a budget of tokens
layers.py           a version's layers from a job's inputs, all or the first few
"""
