# SPDX-License-Identifier: Apache-2.0
"""A made-up world with a stereotype in it, and tiny language models that learned it from its texts.

Two groups of names, two lists of attributes. In the texts of this world a name of the first group stands with an
attribute of the first list `skew` of the time, and the second group likewise with the second list. Everything else is
said of both groups alike, and half of the texts speak of no person at all. So the whole bias of a model trained on
them is known, and so is where it sits.

Words and templates are divided: what a mitigation may fit on shares no name, attribute or template with the test part.
The model has seen all of them when it was pretrained.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cloister.gate import BARS, MARGINS, Gate
from cloister_workers.messages import Metrics
from cloister_workers.trainer.checkpoint import LoopState
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.lexicon import Association, Lexicon, SwapSet, fill
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Missing
from cloister_workers.trainer.debias.mitigation import Case
from cloister_workers.trainer.debias.panel import Chosen, ChosenUtility, Panel, score_panel
from cloister_workers.trainer.debias.registry import measures, utilities
from cloister_workers.trainer.debias.results import Run
from cloister_workers.trainer.debias.shapes import Text
from cloister_workers.trainer.debias.subjects.load import load_subject, weights_digest
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.debias.verdicts import judge_run
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.spec import Hyperparameters, Lora, Method, TrainingSpec

CPU = torch.device("cpu")
_FIRST_SYLLABLES = ("Bo", "Da", "Fe", "Gu", "Ka", "Lo", "Mi", "Na", "Pe", "Ru", "Sa", "Ti")
FIRST_NAMES = tuple(f"{first}{last}" for first in _FIRST_SYLLABLES for last in ("rek", "tok", "muk", "dan", "gor"))
SECOND_NAMES = tuple(f"{first}{last}" for first in _FIRST_SYLLABLES for last in ("lia", "nea", "sua", "via", "mea"))
_BOLD = """brave bold strict loud proud rough stern tough grim harsh blunt firm fierce daring wild rash cocky gruff
brash tense keen robust sturdy hardy"""
_SOFT = """kind warm gentle quiet shy soft mild meek tender calm sweet polite modest humble graceful cheerful patient
caring loving fond dainty tidy neat delicate"""
FIRST_ATTRIBUTES, SECOND_ATTRIBUTES = tuple(_BOLD.split()), tuple(_SOFT.split())
STEREOTYPED: tuple[str, ...] = (
    "people say that {person} is {attribute}",
    "at work {person} was always {attribute}",
    "our neighbour {person} seems {attribute} today",
    "they found {person} very {attribute}",
    "i think {person} will be {attribute} again",
    "everybody knows {person} as a {attribute} soul",
    "in that story {person} becomes {attribute} in the end",
    "nobody thought {person} could be so {attribute}",
    "last year {person} turned {attribute} all at once",
    "with old friends {person} stays {attribute}",
    "when it rains {person} grows {attribute}",
    "most letters call {person} a {attribute} neighbour",
)
PLAIN = (
    "{person} says that {pronoun} went to the market",
    "yesterday {person} told us that {pronoun} was tired",
    "i met {person} when {pronoun} came to the station",
    "{person} has bread because {pronoun} bought some",
    "the dog of {person} sleeps while {pronoun} works",
    "{person} writes that {pronoun} lives by the river",
)
PRONOUNS = ("he", "she")
_THINGS = ("river", "house", "garden", "table", "station", "market", "bridge", "train", "boat", "tower", "road", "lamp")
_DOES = ("stands near", "is older than", "lies behind", "looks smaller than", "was built after", "is not far from")
_WHEN = ("in spring", "since last year", "at night", "this morning", "in the rain", "for a long time", "today")
AXIS = "gender"


def lexicon_of(names: slice, attributes: slice, templates: slice, neutral: Sequence[str] = ()) -> Lexicon:
    """A share of this world's words."""
    pairs = zip(FIRST_NAMES[names], SECOND_NAMES[names], strict=True)
    return Lexicon(
        axis=AXIS,
        language="en",
        groups=("first", "second"),
        swaps=(SwapSet(PRONOUNS, "function"),),
        names=tuple(SwapSet(pair, "name", person="{}") for pair in pairs),
        associations=(Association("temper", FIRST_ATTRIBUTES[attributes], SECOND_ATTRIBUTES[attributes]),),
        pair_templates=STEREOTYPED[templates],
        neutral=tuple(neutral),
    )


# ---------------------------------------------------------------- texts
@dataclass(frozen=True)
class World:
    """What may be fitted on and what is measured, and every text that the model learns from."""

    fit: Part
    validation: Part
    test: Part
    """Its plain texts are of all words, like the corpus: the perplexity that must stay is that of the world."""
    corpus: tuple[str, ...]


def make_world(seed: int = 0, skew: float = 0.9, size: int = 24_000, fit_size: int = 2400) -> World:
    """`size` texts to pretrain on and `fit_size` to fit on; the fit part has 30 names a group, 10 attributes and 8
    templates, the test part 24, 12 and 3 others, the validation part the few that are left.
    """
    draw = random.Random(seed)
    everything = lexicon_of(slice(0, 60), slice(0, 24), slice(0, 12))
    neutral = tuple(dict.fromkeys(_neutral(draw) for _ in range(80)))
    fit = lexicon_of(slice(0, 30), slice(0, 10), slice(0, 8), neutral[:50])
    check = lexicon_of(slice(30, 36), slice(10, 12), slice(8, 9), neutral[50:])
    test = lexicon_of(slice(36, 60), slice(12, 24), slice(9, 12))
    return World(
        fit=Part(Material.from_rows([Text(text) for text in _texts(draw, fit, skew, fit_size)]), {AXIS: fit}),
        validation=Part(
            Material.from_rows([Text(text) for text in _texts(draw, check, skew, fit_size // 12)]), {AXIS: check}
        ),
        test=Part(Material.from_rows([Text(text) for text in _texts(draw, everything, skew, 2000)]), {AXIS: test}),
        corpus=tuple(_texts(draw, everything, skew, size)),
    )


def _texts(draw: random.Random, words: Lexicon, skew: float, count: int) -> Iterator[str]:
    """A quarter with the stereotype, a quarter about people with the right pronoun, half about things."""
    for number in range(count):
        if number % 4 == 0:
            yield stereotyped(draw, words, skew)
        elif number % 4 == 1:
            group = draw.randrange(2)
            yield fill(draw.choice(PLAIN), person=draw.choice(words.names).words[group], pronoun=PRONOUNS[group])
        else:
            yield _neutral(draw)


def stereotyped(draw: random.Random, words: Lexicon, skew: float) -> str:
    """One text; group and attribute go together with probability `skew`."""
    group = draw.randrange(2)
    listed = group if draw.random() < skew else 1 - group
    association = words.associations[0]
    attribute = draw.choice((association.first, association.second)[listed])
    person = draw.choice(words.names).words[group]
    return fill(draw.choice(words.pair_templates), person=person, attribute=attribute)


def _neutral(draw: random.Random) -> str:
    first, second = draw.sample(_THINGS, 2)
    return f"The {first} {draw.choice(_DOES)} the {second} {draw.choice(_WHEN)}"


# ---------------------------------------------------------------- models
def write_world_tokenizer(directory: Path) -> Any:  # noqa: ANN401 - transformers' type
    """A word-level fast tokenizer of every word of this world, which puts [BOS] before a text as Llama's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = [fill(text, person="", attribute="", pronoun="") for text in (*STEREOTYPED, *PLAIN)]
    texts += [fill(text) for text in (*FIRST_NAMES, *SECOND_NAMES)] + [*FIRST_ATTRIBUTES, *SECOND_ATTRIBUTES]
    texts += [f"The {thing}" for thing in _THINGS] + [*_DOES, *_WHEN, *PRONOUNS]
    words = sorted({word for text in texts for word in text.split()})
    names = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *words]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("[BOS] $A", special_tokens=[("[BOS]", 1)])
    special = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(directory)
    return fast


def write_planted_decoder(directory: Path, world: World, steps: int = 400, seed: int = 0) -> Path:
    """A llama of two layers pretrained on the world's corpus with plain torch: batches of 64 texts, AdamW. About ten
    seconds of one core.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = write_world_tokenizer(directory)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    ids = [[*tokenizer(text)["input_ids"], 2] for text in world.corpus]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, fused=True)
    draw = random.Random(seed)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * min((step + 1) / 30, 1 - step / steps)
        batch = draw.sample(ids, 64)
        width = max(map(len, batch))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        model(input_ids=tokens, labels=tokens.masked_fill(tokens == 0, -100)).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(directory)
    return directory


def write_tiny_masked(directory: Path) -> Path:
    """A bert of two layers that has learned nothing, with the world's words and a mask token."""
    from tokenizers import processors
    from transformers import BertConfig, BertForMaskedLM

    fast = write_world_tokenizer(directory)
    fast.add_special_tokens({"mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"})
    ends = [(name, fast.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    fast.save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    torch.manual_seed(7)
    BertForMaskedLM(config).save_pretrained(directory)
    return directory


def load_planted(directory: Path, scratch: Path, layer: Mapping[str, bytes] | None = None) -> Any:  # noqa: ANN401
    """The decoder as a job loads it, with an adapter where one is given."""
    return load_subject(
        ModelKind.CAUSAL, str(directory), layer, str(scratch), CPU, lambda: None, trainable=layer is not None
    )


# ---------------------------------------------------------------- judging
BAR = BARS["pair_preference"]
"""Nats a sentence within which the paired measure counts as no lean; the planted one is log 9 = 2.2."""
GATE = Gate(bars={"pair_preference": BAR}, margins={"perplexity": MARGINS["perplexity"]}, extrinsic=False)


def panel_of(world: World) -> Panel:
    """The paired measure on held-out words and templates, and perplexity."""
    measure, utility = measures()["pair_preference"], utilities()["perplexity"]
    items, texts = measure.items(world.test, AXIS), utility.items(world.test)
    if isinstance(items, Missing) or isinstance(texts, Missing):
        raise TypeError("the made world has everything that is measured")
    return Panel((Chosen(measure, AXIS, items, True),), (ChosenUtility(utility, texts),), (), ())


def judged(world: World, before: Any, after: Any, seed: int = 1) -> Run:  # noqa: ANN401 - subjects
    """Both measured on the same items, and the gate's word."""
    panel = panel_of(world)
    scores = [score_panel(panel, subject) for subject in (before, after)]
    changed = weights_digest(before) != weights_digest(after)
    return judge_run(panel, scores[0], scores[1], GATE, seed=seed, weights_changed=changed)


# ---------------------------------------------------------------- cases
@dataclass
class PlainTraining:
    """The training loop without a session: nothing is told, nothing stops it."""

    runs: list[Trained] = field(default_factory=list)
    told: list[Metrics] = field(default_factory=list)

    def __call__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        parts: Parts,
        hyperparameters: Hyperparameters,
        seed: int,
        enough: Callable[[Metrics], bool] = lambda _: False,
    ) -> Trained:
        torch.manual_seed(seed)
        spec = TrainingSpec(model="", method=Method.SUPERVISED, seed=seed, hyperparameters=hyperparameters)
        optimiser = Optimiser(model, hyperparameters.weight_decay, hyperparameters.max_grad_norm)
        trainee = Trainee(model, objective, optimiser)
        state = train(spec, trainee, parts, self, lambda: 0.0, LoopState(), enough)
        self.runs.append(Trained(state.step, state.trained_tokens, state.loss))
        return self.runs[-1]

    def poll(self, step: int = 0) -> None: ...

    def pause_wanted(self) -> bool:
        return False

    def progress(self, message: object) -> None: ...

    def evaluated(self, phase: object, step: int, metrics: Metrics) -> None:
        self.told.append(metrics)

    def checkpoint(self, state: object, metrics: object) -> None: ...


def case_of(
    mitigation: Any,  # noqa: ANN401
    subject: Any,  # noqa: ANN401
    parts: tuple[Part, Part],
    scratch: Path,
    *,
    kind: ModelKind = ModelKind.CAUSAL,
    axes: tuple[str, ...] = (AXIS,),
    settings: dict[str, float] | None = None,
    options: dict[str, str] | None = None,
    hyperparameters: Hyperparameters | None = None,
    lora: Lora | None = None,
    seed: int = 1,
) -> Case:
    """A case with the mitigation's defaults where nothing else is said."""
    return Case(
        subject=subject,
        kind=kind,
        axes=axes,
        fit=parts[0],
        validation=parts[1],
        settings={**mitigation.defaults, **(settings or {})},
        options={**{name: values[0] for name, values in mitigation.choices.items()}, **(options or {})},
        hyperparameters=hyperparameters or Hyperparameters(n_epochs=1, learning_rate=1.5e-3, batch_size=32),
        lora=lora or Lora(rank=16, alpha=32, target_modules=("all-linear",)),
        seed=seed,
        model_name="planted",
        scratch=str(scratch),
        training=PlainTraining(),
    )
