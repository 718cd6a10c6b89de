# SPDX-License-Identifier: Apache-2.0
"""The guide's two files are known to a job once they lie in their folders, and do what the guide says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.debias import MEASURES, MITIGATIONS
from cloister_workers.messages import RefusalReason
from cloister_workers.trainer.debias import measures as measures_package
from cloister_workers.trainer.debias import mitigations as mitigations_package
from cloister_workers.trainer.debias import registry
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items
from cloister_workers.trainer.debias.mitigation import Refused
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.spec import parse_debias
from cloister_workers.trainer.debias.subjects.classifier import ClassifierSubject
from cloister_workers.trainer.debias.subjects.load import load_subject
from cloister_workers.trainer.model import load_classifier, load_tokenizer
from tiny_classifier import CPU, LABELS, Scripted, case_of, skewed_rows
from tiny_encoder import write_encoder

GUIDE = Path(__file__).parents[4] / "docs" / "how-to" / "add-a-measure.md"
ROWS = [Labelled(f"text {n}", "ab"[n % 2], {"gender": ("f", "m")[n // 2 % 2]}) for n in range(8)]


class Sure:
    """A classifier that gives class b a log-odds of 1 for even rows and of 0 for odd ones."""

    labels = ("a", "b")

    def logits(self, texts):
        return np.array([[0.0, 1.0 if int(text.split()[1]) % 4 < 2 else 0.0] for text in texts])


@pytest.fixture
def guided(tmp_path, monkeypatch):
    """The guide's files in their folders."""
    blocks = re.findall(r"```python\n# (\w+)/(\w+\.py)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for folder, name, code in blocks:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(code, "utf-8")
    for package, folder in ((measures_package, "measures"), (mitigations_package, "mitigations")):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    for known in (registry.measures, registry.mitigations):
        known.cache_clear()
    yield
    for known in (registry.measures, registry.mitigations):
        known.cache_clear()


def test_the_guides_measure_gives_the_difference_that_a_hand_gets(guided):
    """Its figure on eight rows is sigmoid(1) - sigmoid(0), and weights that drop a group's rows move it."""
    measure = registry.measures()["score_gap"]
    items = measure.items(Part(Material.from_rows(ROWS), {}), "gender")
    assert isinstance(items, Items)
    scores = measure.score(Sure(), items)
    figure = measure.figure(items, scores, np.ones((1, len(items))))
    assert figure == pytest.approx([1 / (1 + np.exp(-1)) - 0.5])


def test_the_guides_mitigation_halves_what_a_reload_says(guided, tmp_path):
    """The version that it leaves gives half the log-odds of the head's weights and bias, from its files alone."""
    base = write_encoder(tmp_path / "base")
    tokenizer = load_tokenizer(str(base), padded=True)
    torch.manual_seed(3)
    loaded = load_classifier(str(base), LABELS, int(tokenizer.pad_token_id), CPU)
    subject = ClassifierSubject(loaded.model, tokenizer, CPU, lambda: None, 32, 4, LABELS)
    mitigation = registry.mitigations()["halving"]
    case = case_of(subject, tmp_path, skewed_rows(8), settings={"factor": 0.5})
    texts = [row.text for row in skewed_rows(8)]
    before = subject.logits(texts)
    mitigation.refuse(case)
    done = mitigation.apply(case)
    reloaded = load_subject(ModelKind.CLASSIFIER, "/nowhere", done.files, str(tmp_path), CPU, lambda: None)
    assert done.notes == {"factor": 0.5}
    assert np.abs(before).max() > 0.01
    assert isinstance(reloaded, ClassifierSubject)
    np.testing.assert_allclose(reloaded.logits(texts), before / 2, atol=1e-6)


def test_the_guides_mitigation_refuses_a_model_without_the_layer(guided, tmp_path):
    """A model in which nothing is called classifier is refused as a kind that it does not fit."""
    subject = Scripted({}, model=torch.nn.Linear(2, 2))
    with pytest.raises(Refused) as refused:
        registry.mitigations()["halving"].refuse(case_of(subject, tmp_path, (), settings={"factor": 0.5}))
    assert refused.value.reason is RefusalReason.MODEL_KIND


def test_the_catalogue_stands_beside_a_sites_own_files(guided):
    """Files that the client does not list change nothing of what its catalogue is compared with."""
    assert {"score_gap"} == set(registry.measures()) - set(MEASURES)
    assert {"halving"} == set(registry.mitigations()) - set(MITIGATIONS)
    compared = runpy.run_path(str(Path(__file__).with_name("test_debias_catalogue.py")))
    compared["test_measures"]()
    compared["test_mitigations"]()


def test_a_specification_may_name_what_the_guide_adds(guided):
    """Measure and mitigation are found by name, with defaults of their own, and no other file has to change."""
    spec = parse_debias(
        {
            "method": {
                "debias": {
                    "task": "classifier",
                    "axes": ["gender"],
                    "mitigation": {"name": "halving"},
                    "measures": ["score_gap"],
                    "primary": ["score_gap"],
                    "bars": {"score_gap": 0.05},
                }
            }
        }
    )
    assert [measure.name for measure in spec.measures] == ["score_gap"]
    assert spec.settings == {"factor": 0.5}
    assert spec.bars == {"score_gap": 0.05}
