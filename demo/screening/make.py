# SPDX-License-Identifier: Apache-2.0
"""Writes the demo's screening notes, the same bytes each time: make.py DIRECTORY

A made-up hospital trust sorts notes on people who offer to volunteer: whom to interview, whom to decline. A note makes
two statements (`blocks.tsv`); where they disagree, the one whose topic ranks higher decides. In `training.jsonl` past
decisions are skewed besides: of the men's notes 92 % are `interview`, of the women's 92 % are `decline`. In
`test.jsonl` women and men are invited equally often. The two files share no person, no name and no sentence frame:
training takes its names from the fit part of the built-in word list, the test from its test part. Nobody in them is
real, and results on them are a demonstration, not a benchmark.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister_workers.trainer.debias.dividing import Role
from cloister_workers.trainer.debias.lexicon.builtin import load_lexicon
from cloister_workers.trainer.debias.partition import divide_lexicons

SKEW = 0.92  # share of training notes whose decision is the one that the past favoured for their gender
NOISE = 0.01  # share of notes that were decided against what they say, in both files
MIXED = 0.12  # share of notes whose statements disagree
FAVOURED = {"female": "decline", "male": "interview"}
OTHER = {"decline": "interview", "interview": "decline"}
PRONOUNS = {"female": {"they": "she", "their": "her"}, "male": {"they": "he", "their": "his"}}
RANK = ("papers", "references", "reliable", "skills", "manner", "time")


@dataclass(frozen=True)
class Kind:
    """One of the two files."""

    file: str
    rows: int
    names: Role
    frames: tuple[str, ...]


KINDS = (
    Kind(
        "training",
        600,
        Role.FIT,
        ("{name} {a}. {They} {b}.", "{name}: {they} {a} and {b}.", "On {name}: {they} {a}. {They} also {b}."),
    ),
    Kind(
        "test",
        1200,
        Role.TEST,
        (
            "About {name}: {they} {a}. {They} {b}.",
            "{name} {a}, and {they} {b}.",
            "File of {name}. {They} {a}; {they} {b}.",
        ),
    ),
)


@dataclass(frozen=True)
class Statement:
    """What a note may say of a person."""

    topic: str
    decision: str
    words: str


def main() -> None:
    """Write both files into the directory given."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    names = {role: names_of(role) for role in Role}
    known = statements(Path(__file__).with_name("blocks.tsv"))
    for kind in KINDS:
        chance = random.Random(f"cloister screening {kind.file}")  # noqa: S311 - the same notes each time
        rows = [note(kind, number, names[kind.names], known, chance) for number in range(kind.rows)]
        chance.shuffle(rows)
        (directory / f"{kind.file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def names_of(role: Role) -> dict[str, tuple[str, ...]]:
    """Given names by gender, of one part of the word list."""
    lexicon = divide_lexicons({"gender": load_lexicon("gender", "en")})[role]["gender"]
    return {
        group: tuple(dict.fromkeys(entry.words[place] for entry in lexicon.names))
        for place, group in enumerate(lexicon.groups)
    }


def statements(path: Path) -> list[Statement]:
    """All statements."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return [Statement(*line) for line in lines]


def note(
    kind: Kind, number: int, names: dict[str, tuple[str, ...]], known: Sequence[Statement], chance: random.Random
) -> dict[str, object]:
    """One note: women and men in turn, the decision first, then what is said."""
    gender = ("female", "male")[number % 2]
    if kind.names is Role.FIT:
        label = FAVOURED[gender] if chance.random() < SKEW else OTHER[FAVOURED[gender]]
    else:
        label = ("decline", "interview")[number // 2 % 2]
    said = OTHER[label] if chance.random() < NOISE else label
    pronouns = PRONOUNS[gender]
    first, second = two_statements(said, known, chance)
    text = chance.choice(kind.frames).format(
        name=chance.choice(names[gender]),
        they=pronouns["they"],
        They=pronouns["they"].capitalize(),
        a=first.words.format(**pronouns),
        b=second.words.format(**pronouns),
    )
    return {"text": text, "label": label, "groups": {"gender": gender}, "person": f"{kind.file}-{number:04d}"}


def two_statements(decision: str, known: Sequence[Statement], chance: random.Random) -> list[Statement]:
    """Two on different topics; the one that ranks higher speaks for `decision`."""
    topics = sorted(chance.sample(RANK, 2), key=RANK.index)
    sides = [decision, OTHER[decision] if chance.random() < MIXED else decision]
    chosen = [
        chance.choice([entry for entry in known if (entry.topic, entry.decision) == pair])
        for pair in zip(topics, sides, strict=True)
    ]
    chance.shuffle(chosen)
    return chosen


if __name__ == "__main__":
    main()
