# SPDX-License-Identifier: Apache-2.0
"""De-biasing in specifications: what is filled in, what is refused, and what a dry run says of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from cloister.api.v1 import spec_pb2
from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.debias import MEASURES, MITIGATIONS, TASKS, UTILITIES
from cloister.errors import UsageError
from cloister.evidence.policy import Policy
from cloister.gate import BARS, MARGINS, Gate
from cloister.settings import check, fill
from cloister.sizes import needed
from cloister.spec import from_bytes, read_spec, resolve, spec_bytes

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "spec.md"
CAUSAL = {"task": "causal_lm", "mitigation": {"name": "counterfactual"}}
DEBIAS = {"task": "classifier", "axes": ["gender"], "mitigation": {"name": "counterfactual"}}


def spec_of(**changes):
    wanted = {name: value for name, value in {**DEBIAS, **changes}.items() if value is not None}
    return {"model": "m", "training_dataset": "d", "purpose": "p", "method": {"debias": wanted}}


def resolved(**changes):
    return resolve(read_spec(spec_of(**changes))).method.debias


@pytest.mark.parametrize("task", TASKS)
def test_defaults_of_each_task_are_complete_and_fit(task):
    """Every hyper-parameter has a default in its range; measures and utilities fit, and primary ones have bars."""
    found = TASKS[task]
    assert set(found.hyperparameters) <= {field.name for field in spec_pb2.Hyperparameters.DESCRIPTOR.fields}
    wanted = spec_pb2.Hyperparameters()
    fill(wanted, dict(found.hyperparameters))
    check(wanted)
    assert all(task in MEASURES[name].tasks for name in found.measures)
    assert all(task in UTILITIES[name].tasks and name in MARGINS for name in found.utilities)
    assert set(found.primary) <= set(found.measures) & set(BARS)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", MITIGATIONS)
def test_every_mitigation_resolves_for_its_tasks_alone(task, name):
    """Settings and options are spelled out in full where the mitigation fits, and it is refused elsewhere."""
    if task not in MITIGATIONS[name].tasks:
        with pytest.raises(UsageError, match="does not fit"):
            resolved(task=task, mitigation={"name": name})
        return
    found = resolved(task=task, mitigation={"name": name})
    assert dict(MITIGATIONS[name].settings) == dict(found.mitigation.settings)
    assert {key: values[0] for key, values in MITIGATIONS[name].options.items()} == dict(found.mitigation.options)


def test_what_is_signed_says_everything():
    """A short specification becomes one with language, measures, primary, utilities, settings, seeds and training."""
    spec = resolve(read_spec(spec_of()))
    values = json.loads(spec_bytes(spec))["method"]["debias"]
    assert {field.name for field in spec_pb2.Debias.DESCRIPTOR.fields} - {"bars", "margins", "guard_axes"} == set(
        values
    )
    assert {"replay": 0.25, "share": 1.0, "kl": 0.0} == values["mitigation"]["settings"]
    assert (["flip_rate", "equalized_odds"], ["accuracy"], "en", 3) == (
        values["primary"],
        values["utilities"],
        values["language"],
        values["seeds"],
    )
    assert (3, 2e-3) == (values["hyperparameters"]["n_epochs"], values["hyperparameters"]["learning_rate"])
    assert spec == from_bytes(spec_bytes(spec))


def test_given_values_stay():
    """What is given is kept; primary measures follow the chosen ones."""
    found = resolved(
        measures=["demographic_parity", "flip_rate"],
        mitigation={"name": "counterfactual", "settings": {"replay": 0.5}, "options": {"two_axes": "swap"}},
        bars={"flip_rate": 0.01},
        seeds=3,
        hyperparameters={"learning_rate": 1e-4, "batch_size": 4},
    )
    assert (["flip_rate"], 3, 0.01) == (list(found.primary), found.seeds, found.bars["flip_rate"])
    assert {"replay": 0.5, "share": 1.0, "kl": 0.0} == dict(found.mitigation.settings)
    assert {"two_axes": "swap"} == dict(found.mitigation.options)
    assert (1e-4, 4, 4) == tuple(
        getattr(found.hyperparameters, name) for name in ("learning_rate", "batch_size", "micro_batch_size")
    )


@pytest.mark.parametrize(
    ("changes", "guarded"),
    [
        ({"task": "sentence_encoder", "mitigation": {"name": "erasure"}}, ["ethnicity"]),
        (
            {"task": "sentence_encoder", "mitigation": {"name": "erasure"}, "measures": ["association"]},
            ["age", "ethnicity", "religion"],
        ),
        ({"task": "causal_lm", "axes": ["age", "gender*age"]}, ["ethnicity", "religion"]),
        ({"task": "masked_lm", "language": "de"}, []),
        ({"task": "masked_lm", "guard_axes": ["age"]}, ["age"]),
        ({"task": "masked_lm", "measures": ["pair_preference", "crows_pll_nangia"]}, []),
        ({"task": "classifier"}, []),
    ],
)
def test_other_axes_are_guarded_where_word_lists_are_enough(changes, guarded):
    """Without a wish the other built-in axes are watched, unless a measure needs rows; a wish stays."""
    assert guarded == list(resolved(**changes).guard_axes)


def test_the_command_shows_what_is_guarded(submit, debias):
    """Axes that must not get worse stand beside those that are mitigated."""
    _, out, _ = submit(debias(guard_axes=["age", "religion"]))
    assert ["guarded", "axes", "age,", "religion"] in [line.split() for line in out.splitlines()]


def test_names_that_a_site_added_are_taken_as_they_are():
    """Nothing is filled in for them; a bar and a margin of their own make them judged."""
    found = resolved(
        mitigation={"name": "site_method", "settings": {"strength": 2.0}},
        measures=["flip_rate", "site_measure"],
        primary=["site_measure"],
        utilities=["site_utility"],
        bars={"site_measure": 0.1},
        margins={"site_utility": 0.0},
    )
    assert {"strength": 2.0} == dict(found.mitigation.settings)
    assert ["site_measure"] == list(found.primary)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": None}, "task is ''; choose one of classifier"),
        ({"task": "regressor"}, "task is 'regressor'"),
        ({"axes": None}, "axes is missing"),
        ({"axes": ["Gender"]}, "axes holds 'Gender'"),
        ({"axes": ["gender", "gender"]}, "axes names something twice"),
        ({"axes": [f"a{n}" for n in range(33)]}, "more than 32"),
        ({"axes": ["gender*"]}, "axes holds"),
        ({"guard_axes": ["gender"]}, "guard_axes names one of the axes"),
        ({"guard_axes": ["Age"]}, "guard_axes holds 'Age'"),
        ({"guard_axes": [f"a{n}" for n in range(32)]}, "more than 32 of both together"),
        ({"language": "English"}, "language is not two"),
        ({"mitigation": None}, "mitigation.name is missing"),
        ({"mitigation": {"name": "No Name"}}, "mitigation.name is missing or no name"),
        ({"mitigation": {"name": "counterfactual", "settings": {"reply": 1}}}, "settings.reply is not one"),
        ({"mitigation": {"name": "counterfactual", "options": {"two_axes": "no"}}}, "two_axes is none of skip, swap"),
        ({"mitigation": {"name": "reweighing", "settings": {"x": 1}}}, "it takes none"),
        ({"mitigation": {"name": "mine", "settings": {"x": "NaN"}}}, "not finite"),
        ({"measures": ["association"]}, "association, which does not fit a classifier"),
        ({"measures": ["flip_rate", "flip_rate"]}, "measures names something twice"),
        ({"measures": ["demographic_parity"]}, "primary names some of the measures"),
        ({"primary": ["token_fairness", "regard"]}, "primary names some of the measures"),
        ({"measures": ["mine"], "primary": ["mine"]}, "primary measure mine has no bar"),
        ({"utilities": ["perplexity"]}, "perplexity, which does not fit"),
        ({"utilities": ["mine"]}, "utility mine is not a built-in one"),
        ({"bars": {"regard": 0.1}}, "bars holds regard, which is not measured"),
        ({"bars": {"flip_rate": 0}}, "bars.flip_rate is 0; give a number above 0"),
        ({"bars": {"flip_rate": "NaN"}}, "bars.flip_rate is nan"),
        ({"margins": {"accuracy": -0.01}}, "margins.accuracy is -0.01; give a number from 0"),
        ({"margins": {"flip_rate": 0.01}}, "margins holds flip_rate"),
        ({"axes": ["gender*age"]}, "axes holds intersections alone (gender*age)"),
        (
            {**CAUSAL, "axes": ["age", "gender*age"], "measures": ["winogender"]} | {"primary": ["winogender"]},
            "can be taken on the axes age: winogender takes the axis gender alone; choose other primary",
        ),
        ({"seeds": 0}, "seeds is 0; give 1 to 20"),
        ({"seeds": 21}, "seeds is 21"),
        ({"hyperparameters": {"n_epochs": 0}}, "n_epochs is 0; give 1 to 10000"),
        ({"hyperparameters": {"learning_rate": 0}}, "learning_rate"),
    ],
)
def test_refused(changes, said):
    """Each mistake is refused in one line that names the field."""
    with pytest.raises(UsageError) as caught:
        resolved(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_weight_is_not_trained():
    """De-biasing trains adapters; another wish is refused."""
    with pytest.raises(UsageError, match="adapter is full"):
        resolve(read_spec({**spec_of(), "adapter": {"full": {}}}))


def test_the_page_lists_what_is_filled_in():
    """docs/reference/spec.md has a line for each mitigation, with its models, settings and options as they are."""
    lines = set(PAGE.read_text(encoding="utf-8").splitlines())
    for name, known in MITIGATIONS.items():
        settings = ", ".join(f"`{key}` {value:g}" for key, value in known.settings.items()) or "none"
        options = "; ".join(f"`{key}`: {', '.join(values)}" for key, values in known.options.items()) or "none"
        assert f"| `{name}` | {', '.join(known.tasks)} | {settings} | {options} |" in lines
    for name, task in TASKS.items():
        named = (task.measures, task.primary, task.utilities)
        assert f"| `{name}` | {' | '.join(', '.join(entry) for entry in named)} |" in lines


@pytest.fixture
def debias(site, spec):
    """A specification whose inputs are there."""

    def make(**changes):
        return {**spec(), "method": spec_of(**changes)["method"]}

    return make


def test_dry_run_signs_and_queues_nothing(site, debias):
    """What would be signed is shown with ids and sizes; no job, no authorisation."""
    found = site.client().jobs.dry_run(debias())
    assert {} == site.jobs
    assert "CreateJob" not in site.channel.calls
    assert next(iter(site.datasets)) == found.spec.training_dataset
    assert {"training": 2} == {role: item.trailer.rows for role, item in found.data.items()}
    flips = next(limit for limit in found.limits if limit.name == "flip_rate")
    assert ("primary", 0.02, 0.02, needed("flip_rate", 0.02)) == (flips.role, flips.limit, flips.policy, flips.need)
    assert 183 == flips.need.items
    unwatched = "not watched: age, ethnicity, religion; name under guard_axes what must not get worse"
    assert (unwatched,) == found.remarks


def with_gate(site, gate):
    """The site publishes a policy with this gate."""
    newer = dataclasses.replace(Policy.parse(site.policy.payload), version=3, gate=gate)
    site.policy = newer.sign(site.policy_key)


def test_dry_run_tells_guards_from_what_decides(site, debias):
    """A measure that is not primary needs what its worsening asks for, which the policy holds to a share of the bar."""
    with_gate(site, Gate(harm=0.5))
    found = {limit.name: limit for limit in site.client().jobs.dry_run(debias()).limits}
    assert needed("demographic_parity", 0.025, guards=True) == found["demographic_parity"].need
    assert needed("flip_rate", 0.02) == found["flip_rate"].need
    with_gate(site, Gate(harm=0.0))
    found = {limit.name: limit for limit in site.client().jobs.dry_run(debias()).limits}
    assert found["demographic_parity"].need is None


def test_dry_run_uses_the_bars_in_force(site, debias):
    """The policy's bar counts, and the specification's where it is tighter."""
    with_gate(site, Gate(bars={**BARS, "flip_rate": 0.04, "equalized_odds": 0.2}))
    found = site.client().jobs.dry_run(debias(bars={"flip_rate": 0.03}))
    limits = {limit.name: (limit.limit, limit.policy) for limit in found.limits}
    assert ((0.03, 0.04), (0.2, 0.2)) == (limits["flip_rate"], limits["equalized_odds"])


@pytest.mark.parametrize(
    "changes",
    [
        {"bars": {"flip_rate": 0.03}},
        {"margins": {"accuracy": 0.02}},
        {"measures": ["flip_rate", "mine"], "primary": ["flip_rate"], "bars": {"mine": 100.0}},
    ],
)
def test_a_bar_above_the_policys_is_not_signed(site, debias, changes):
    """A specification may tighten the gate; one that widens it is refused before anything is sent."""
    with pytest.raises(UsageError, match="the release policy"):
        site.client().jobs.submit(debias(**changes))
    assert {} == site.jobs


def test_dry_run_says_what_cannot_pass(site, debias):
    """A gate that no result could pass, and names that hosts may not know, are said before anything is signed."""
    with_gate(site, Gate(bars={"flip_rate": 0.02}, margins={"accuracy": 0.01}))
    masked = {"task": "masked_lm", "mitigation": {"name": "counterfactual"}}
    remarks = " ".join(site.client().jobs.dry_run(debias(**masked)).remarks)
    assert "none of these is: it cannot PASS" in remarks
    assert "primary measure pair_preference has no bar in the policy" in remarks
    strange = {"mitigation": {"name": "mine"}, "utilities": ["accuracy", "macro_f1"], "seeds": 2}
    remarks = " ".join(site.client().jobs.dry_run(debias(**strange)).remarks)
    assert "mine is not built in" in remarks
    assert "macro_f1 has no margin" in remarks
    remarks = " ".join(site.client().jobs.dry_run(debias(mitigation={"name": "erasure"}, seeds=2)).remarks)
    assert "erasure is not trained: it runs once" in remarks


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"guard_axes": ["age", "religion"], "measures": ["pair_preference", "winobias_type1"]},
            ["winobias_type1 takes the axis gender alone: it is not taken on age, religion"],
        ),
        (
            {"guard_axes": ["age"], "measures": ["winobias_type1", "crows_ll_causal"], "primary": ["winobias_type1"]},
            ["winobias_type1 takes the axis gender alone: it is not taken on age"],
        ),
        (
            {"guard_axes": ["age"], "measures": ["winobias_type1"], "primary": ["winobias_type1"]},
            [
                "winobias_type1 takes the axis gender alone: it is not taken on age",
                (
                    "no measure with a bar can be taken on age, which is guarded: the gate cannot PASS; "
                    "add a measure that can, or leave the axis out"
                ),
            ],
        ),
        (
            {"axes": ["gender", "age"], "measures": ["winogender", "regard"], "primary": ["winogender"]},
            [
                "winogender takes the axis gender alone: it is not taken on age",
                (
                    "no primary measure can be taken on age: the gate cannot PASS; "
                    "add a primary measure that can, or leave the axis out"
                ),
            ],
        ),
        (
            {"axes": ["gender", "gender*age"], "measures": ["pair_preference", "regard"]},
            ["gender*age is not measured: none of the measures can be taken on an intersection"],
        ),
        (
            {"language": "de", "measures": ["pair_preference", "regard"]},
            [
                "the policy asks for a measure on the task itself that has a bar, and none of these is: it cannot PASS",
                "regard takes the language en alone: it is not taken on gender",
            ],
        ),
    ],
)
def test_dry_run_says_which_measure_takes_which_axis(site, debias, changes, said):
    """What is taken nowhere on an axis, and whether that keeps the gate from a PASS, is said before anything runs."""
    remarks = site.client().jobs.dry_run(debias(**CAUSAL, **changes)).remarks
    assert said == [remark for remark in remarks if not remark.startswith("not watched")]


def test_dry_run_of_other_methods_has_no_gate(site, spec):
    """A classification shows its stages and inputs."""
    found = site.client().jobs.dry_run(spec())
    assert (None, ()) == (found.gate, found.limits)
    assert "train" in found.stages


@pytest.fixture
def submit(site, monkeypatch, capsys, tmp_path):
    """Run `cloister job submit --dry-run`: exit code, standard output, standard error."""
    monkeypatch.setattr(Client, "open", lambda home: site.client(home.name))

    def command(spec, *options):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
        arguments = ["job", "submit", str(tmp_path / "spec.yaml"), "--dry-run", *options]
        code = run("cloister", cli, [*arguments, "--home", str(site.homes["anna"].directory)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_the_command_shows_bars_and_numbers(submit, debias, site):
    """Each measure with its bar, the policy's, and how many items PASS needs; nothing is queued."""
    code, out, err = submit(debias(bars={"equalized_odds": 0.05}))
    lines = [line.split() for line in out.splitlines()]
    assert 0 == code
    assert ["flip_rate", "primary", "0.02", "0.02", "183", "183"] == next(x for x in lines if x[:1] == ["flip_rate"])[
        :6
    ]
    odds = next(line for line in lines if line[:1] == ["equalized_odds"])
    assert ["0.05", "0.1", str(needed("equalized_odds", 0.05).items)] == odds[2:5]
    assert "counterfactual (kl=0, replay=0.25, share=1, two_axes=skip)" in out
    assert "mitigate" in out
    assert "Nothing was signed" in err
    assert {} == site.jobs


def test_the_command_gives_json(submit, debias):
    """The same as one JSON document, with the specification as it would be signed."""
    code, out, _ = submit(debias(), "--json")
    values = json.loads(out)
    assert 0 == code
    assert "gender" == values["spec"]["method"]["debias"]["axes"][0]
    assert 183 == values["limits"][0]["items"]
    assert "0.02" == values["gate"]["bars"]["flip_rate"]


def test_the_command_of_a_plain_job(submit, spec):
    """A classification has no table of bars."""
    code, out, _ = submit(spec())
    assert 0 == code
    assert "PASS WITH" not in out


def test_language_models_get_wide_adapters_unless_the_spec_says_otherwise():
    """De-biasing adapts all linear layers of a language model; a named target or rank is left as it is."""
    body = {"task": "causal_lm", "axes": ["gender"], "mitigation": {"name": "counterfactual"}}
    given = {"model": "m", "training_dataset": "d", "purpose": "p", "method": {"debias": body}}
    wide = resolve(read_spec(given)).adapter.lora
    assert (wide.rank, wide.alpha, list(wide.target_modules)) == (16, 32.0, ["all-linear"])
    named = resolve(read_spec({**given, "adapter": {"lora": {"rank": 4, "target_modules": ["q_proj"]}}})).adapter.lora
    assert (named.rank, list(named.target_modules)) == (4, ["q_proj"])
