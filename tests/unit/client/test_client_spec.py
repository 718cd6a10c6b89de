# SPDX-License-Identifier: Apache-2.0
"""Specifications: the contract's names, nothing else, and every default spelled out."""

import pytest

from cloister.api.v1 import jobs_pb2
from cloister.errors import UsageError
from cloister.spec import METHOD_DEFAULTS, RANGES, from_bytes, parse_spec, read_spec, resolve, spec_bytes

GOOD = "model: m\ntraining_dataset: d\npurpose: p\nmethod: {classification: {}}\n"


def test_defaults_are_complete():
    """Each method has a default for every hyper-parameter of the contract."""
    names = {field.name for field in jobs_pb2.Hyperparameters.DESCRIPTOR.fields}
    assert [names, names] == [set(METHOD_DEFAULTS[kind]) for kind in ("classification", "supervised")]
    kinds = {field.name for field in jobs_pb2.Method.DESCRIPTOR.fields}
    assert kinds - {"debias"} == set(METHOD_DEFAULTS)  # de-biasing: by task, in `cloister.debias`


def test_ranges_are_of_known_fields():
    """Each range belongs to a field of the contract."""
    messages = (jobs_pb2.JobSpec, jobs_pb2.DataOptions, jobs_pb2.Hyperparameters, jobs_pb2.Lora)
    known = {field.name for message in messages for field in message.DESCRIPTOR.fields}
    assert set() == set(RANGES) - known


@pytest.mark.parametrize("kind", ["classification", "supervised"])
def test_defaults_are_spelled_out(kind):
    """A bare method resolves to its own defaults, LoRA, seed and attempts."""
    spec = resolve(parse_spec(GOOD.replace("classification", kind)))
    settings = getattr(spec.method, kind).hyperparameters
    assert dict(METHOD_DEFAULTS[kind]) == {f.name: v for f, v in settings.ListFields()}
    assert (8, 16.0, 0.0) == (spec.adapter.lora.rank, spec.adapter.lora.alpha, spec.adapter.lora.dropout)
    assert (42, 3, "default") == (spec.seed, spec.max_attempts, spec.pool)
    assert (0.1, 0.2) == (spec.data.validation_fraction, spec.data.evaluation_fraction)


def test_round_trip():
    """The signed bytes read back to the same specification and are canonical."""
    spec = resolve(parse_spec(GOOD + "seed: 18446744073709551615\nmetadata: {team: ä}\n"))
    data = spec_bytes(spec)
    assert spec == from_bytes(data)
    assert data == spec_bytes(from_bytes(data))


def test_given_values_stay():
    """What is given is not replaced; a small batch lowers the micro batch that was not given."""
    text = GOOD.replace("{}", "{hyperparameters: {batch_size: 4, max_steps: 0, learning_rate: 1e-4}}")
    settings = resolve(parse_spec(text)).method.classification.hyperparameters
    assert (4, 4, 1e-4) == (settings.batch_size, settings.micro_batch_size, settings.learning_rate)


def test_named_datasets_replace_the_shares():
    """With an evaluation dataset nothing is held out for evaluation."""
    spec = resolve(parse_spec(GOOD + "evaluation_dataset: e\ndata: {evaluation_fraction: 0.3}\n"))
    assert (0.1, 0.0) == (spec.data.validation_fraction, spec.data.evaluation_fraction)


def test_full_adapter_stays():
    """Training every weight is not turned into LoRA."""
    assert "full" == resolve(parse_spec(GOOD + "adapter: {full: {}}\n")).adapter.WhichOneof("type")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "unknown_key: 1\n", "unknown_key"),
        (GOOD.replace("{}", "{hyperparameters: {lr: 1}}"), '"lr"'),
        (GOOD.replace("{}", "{hyperparameters: {n_epochs: 0}}"), "n_epochs is 0; give 1 to 10000"),
        (GOOD.replace("{}", "{hyperparameters: {n_epochs: many}}"), "n_epochs"),
        (GOOD.replace("{}", "{hyperparameters: {learning_rate: 0}}"), "learning_rate"),
        (GOOD.replace("{}", "{hyperparameters: {learning_rate: .nan}}"), "learning_rate"),
        (GOOD.replace("{}", "{hyperparameters: {batch_size: 4, micro_batch_size: 8}}"), "micro_batch_size"),
        (GOOD.replace("{}", "{hyperparameters: {lr_scheduler_type: magic}}"), "lr_scheduler_type"),
        (GOOD.replace("{classification: {}}", "{}"), "method is missing"),
        (GOOD.replace("{classification: {}}", "{classification: {}, supervised: {}}"), "type"),
        (GOOD.replace("purpose: p\n", ""), "purpose is missing"),
        (GOOD + "priority: 101\n", "priority is 101; give -100 to 100"),
        (GOOD + "data: {validation_fraction: 0.6}\n", "validation_fraction"),
        (GOOD + "metadata: {k: " + "v" * 513 + "}\n", "metadata"),
        ("- a list\n", "expected keys"),
        ("a: [\n", "not YAML in line"),
    ],
)
def test_refused(text, said):
    """Each mistake is refused in one line that names the field."""
    with pytest.raises(UsageError) as caught:
        resolve(parse_spec(text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sources(tmp_path):
    """A path, a mapping and a message give the same specification."""
    (tmp_path / "s.yaml").write_text(GOOD)
    mapping = {"model": "m", "training_dataset": "d", "purpose": "p", "method": {"classification": {}}}
    spec = read_spec(tmp_path / "s.yaml")
    assert spec == read_spec(mapping) == read_spec(spec)
    with pytest.raises(UsageError):
        read_spec(tmp_path / "missing.yaml")
