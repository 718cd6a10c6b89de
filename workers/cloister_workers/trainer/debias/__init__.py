# SPDX-License-Identifier: Apache-2.0
"""De-biasing as a job: measure, mitigate, measure again on the same items, and judge by equivalence bounds.

job.py          the stages, in order
spec.py         the signed specification
material.py     rows by kind, and the disjoint parts: fit, validation, test
partition.py    which words, names, templates, texts and persons belong to which part
crossing.py     rows that name a test word are left out or counted; items that name a word at hand are marked
lexicon/        our word lists, names, templates and swaps; swapping.py makes counterfactual texts
subjects/       what measures may ask of a model: logits, likelihoods, embeddings, continuations
measures/       a measure of bias a file
utilities/      a measure of what must not be lost a file
mitigations/    a mitigation a file
statistics/     clustered bootstrap, permutation, exact tests, Holm
gate.py         PASS, FAIL or INCONCLUSIVE
report/         the sealed page with names, and its numeric twin
"""
