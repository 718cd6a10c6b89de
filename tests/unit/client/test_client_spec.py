# SPDX-License-Identifier: Apache-2.0
"""Specifications: the contract's names, nothing else, and every default spelled out."""

import pytest

from cloister.api.v1 import spec_pb2
from cloister.errors import UsageError
from cloister.spec import NO_TRAINING, from_bytes, parse_spec, read_spec, resolve, spec_bytes

GOOD = "model: m\ntraining_dataset: d\npurpose: p\nmethod: {classification: {}}\n"


METHODS = {field.name: field.message_type for field in spec_pb2.Method.DESCRIPTOR.fields}
PLAIN = sorted(METHODS.keys() - {"debias"})


def bare(kind):
    """The shortest specification of a method."""
    rows = "evaluation_dataset" if kind in NO_TRAINING else "training_dataset"
    settings = {"task": "supervised"} if kind == "evaluation" else {}
    second = {"auxiliary_model": "s"} if kind in ("distillation", "retrieval") else {}
    return {"model": "m", rows: "d", "purpose": "p", "method": {kind: settings}, **second}


@pytest.mark.parametrize("kind", PLAIN)
def test_every_default_of_the_contract_is_in_its_range(kind):
    """A bare method resolves, every setting of it and of its training is spelled out, and each passes its own check."""
    chosen = getattr(resolve(read_spec(bare(kind))).method, kind)
    assert {name for name, field in chosen.DESCRIPTOR.fields_by_name.items()} == {
        f.name for f, _ in chosen.ListFields()
    }
    if hasattr(chosen, "hyperparameters"):
        wanted = {field.name for field in spec_pb2.Hyperparameters.DESCRIPTOR.fields}
        assert wanted == {field.name for field, _ in chosen.hyperparameters.ListFields()}


@pytest.mark.parametrize(("kind", "rate"), [("classification", 5e-3), ("supervised", 2e-4)])
def test_defaults_are_spelled_out(kind, rate):
    """A bare method resolves to its own defaults, LoRA, seed and attempts; every weight learns at a tenth the rate."""
    spec = resolve(read_spec(bare(kind)))
    assert rate == getattr(spec.method, kind).hyperparameters.learning_rate
    assert (8, 16.0, 0.0) == (spec.adapter.lora.rank, spec.adapter.lora.alpha, spec.adapter.lora.dropout)
    assert (42, 3, "default") == (spec.seed, spec.max_attempts, spec.pool)
    assert (0.1, 0.2) == (spec.data.validation_fraction, spec.data.evaluation_fraction)
    full = resolve(read_spec({**bare(kind), "adapter": {"full": {}}}))
    assert pytest.approx(rate / 10) == getattr(full.method, kind).hyperparameters.learning_rate


def test_auto_is_what_the_signed_form_spells_out():
    """`auto` resolves to the default that is signed; as micro batch it is left to the host."""
    settings = {"learning_rate": "auto", "batch_size": "auto", "micro_batch_size": "auto"}
    wanted = {**bare("supervised"), "method": {"supervised": {"hyperparameters": settings}}}
    found = resolve(read_spec({**wanted, "adapter": {"lora": {"rank": "auto"}}}))
    hyper = found.method.supervised.hyperparameters
    assert (2e-4, 8, 0, 8) == (hyper.learning_rate, hyper.batch_size, hyper.micro_batch_size, found.adapter.lora.rank)


def test_replay_is_shared_out_only_where_there_is_a_replay_dataset():
    """A replay dataset brings its ratio, and a ratio without one is refused."""
    found = resolve(read_spec({**bare("supervised"), "replay_dataset": "old", "evaluation_dataset": "e"}))
    assert (0.2, 0.2) == (found.data.replay_ratio, found.data.evaluation_fraction)
    with pytest.raises(UsageError, match="replay_dataset"):
        resolve(read_spec({**bare("supervised"), "data": {"replay_ratio": 0.5}}))


@pytest.mark.parametrize("kind", ["evaluation", "inference", "retrieval", "in_context"])
def test_what_trains_nothing_takes_no_adapter(kind):
    """A method without a training loop refuses an adapter instead of forgetting it."""
    assert resolve(read_spec(bare(kind))).adapter.WhichOneof("type") is None
    with pytest.raises(UsageError, match="adapter"):
        resolve(read_spec({**bare(kind), "adapter": {"lora": {}}}))


def test_round_trip():
    """The signed bytes read back to the same specification and are canonical."""
    spec = resolve(parse_spec(GOOD + "seed: 18446744073709551615\nmetadata: {team: ä}\n"))
    data = spec_bytes(spec)
    assert spec == from_bytes(data)
    assert data == spec_bytes(from_bytes(data))


@pytest.mark.parametrize("name", ["rslora", "dora"])
def test_a_flag_of_the_adapter_that_is_trained_on_stays(name):
    """Left out, it is the parent's and is signed; given otherwise, either way, it is refused by its name."""
    spec, flagged = read_spec(bare("supervised")), read_spec({**bare("supervised"), "adapter": {"lora": {name: True}}})
    plain = read_spec({**bare("supervised"), "adapter": {"lora": {name: False}}})
    assert getattr(resolve(spec, resolve(flagged)).adapter.lora, name)
    with pytest.raises(UsageError, match=f"{name} is false, the model's adapter has true"):
        resolve(plain, resolve(flagged))
    with pytest.raises(UsageError, match=f"{name} is true, the model's adapter has false"):
        resolve(flagged, resolve(spec))


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
