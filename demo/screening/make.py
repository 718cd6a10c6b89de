# SPDX-License-Identifier: Apache-2.0
"""Writes the demo's screening notes, the same bytes each time: make.py DIRECTORY

A made-up hospital trust sorts notes on people who offer to volunteer: whom to interview, whom to decline. Three things
said of a person decide, by majority. In `training.jsonl` past decisions are skewed besides: of the men's notes 92 %
are `interview`, of the women's 92 % are `decline`. In `test.jsonl` women and men are invited equally often. The two
files share no statement (`blocks.tsv`), no frame, no name and no person. Nobody in them is real.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SKEW = 0.92  # share of training notes whose decision is the one that the past favoured for their gender
NOISE = 0.02  # share of notes that were decided against what they say, in both files
MIXED = 0.2
FAVOURED = {"female": "decline", "male": "interview"}
OTHER = {"decline": "interview", "interview": "decline"}
PRONOUNS = {
    "female": {"they": "she", "them": "her", "their": "her", "title": "Ms"},
    "male": {"they": "he", "them": "him", "their": "his", "title": "Mr"},
}
NAMES = {
    "training": {
        "female": ("Alice", "Diane", "Emma", "Fiona", "Helen", "Irene", "Joanna", "Karen", "Laura", "Maria"),
        "male": ("Adam", "Brian", "Colin", "David", "Edward", "Frank", "George", "Henry", "Ian", "Jack"),
    },
    "test": {
        "female": ("Nancy", "Olivia", "Paula", "Rachel", "Sarah", "Teresa", "Ursula", "Wendy"),
        "male": ("Keith", "Liam", "Martin", "Nigel", "Oscar", "Peter", "Robert", "Simon"),
    },
}
FRAMES = {
    "training": ("{name} {a}. {They} {b}.", "{name}: {they} {a} and {b}.", "{They} {a} and {b}, says the desk of {name}."),
    "test": ("About {name}: {they} {a}. {They} {b}.", "{name} {a}, and {they} {b}.", "{They} {b}. {name} {a}."),
}
SIZES = {"training": 600, "test": 2000}


@dataclass(frozen=True)
class Block:
    """One statement about a person."""

    topic: str
    decision: str
    words: str


RANK = ("papers", "references", "reliable", "skills", "manner", "time")


def read_blocks(path: Path) -> list[Block]:
    """All statements."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return [Block(topic, decision, words) for topic, decision, words in lines]


def main() -> None:
    """Write both files into the directory given."""
    directory = Path(sys.argv[1])
    blocks = read_blocks(Path(__file__).with_name("blocks.tsv"))
    for part, size in SIZES.items():
        random_ = random.Random(f"cloister screening {part} 1")  # noqa: S311 - the same notes each time
        rows = [note(part, number, blocks, random_) for number in range(size)]
        random_.shuffle(rows)
        (directory / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def note(part: str, number: int, blocks: Sequence[Block], random_: random.Random) -> dict[str, object]:
    """One note: women and men in turn, the decision first, then what is said."""
    gender = ("female", "male")[number % 2]
    if part == "training":
        label = FAVOURED[gender] if random_.random() < SKEW else OTHER[FAVOURED[gender]]
    else:
        label = ("decline", "interview")[number // 2 % 2]
    said = OTHER[label] if random_.random() < NOISE else label
    frame = random_.randrange(len(FRAMES[part]))
    name = random_.choice(NAMES[part][gender])
    pronouns = PRONOUNS[gender]
    slots = {"name": name, **pronouns, "They": pronouns["they"].capitalize()}
    for letter, block in zip("ab", statements(said, blocks, random_), strict=True):
        slots[letter] = block.words.format(**pronouns)
    return {
        "text": FRAMES[part][frame].format(**slots),
        "label": label,
        "groups": {"gender": gender},
        "person": f"{part}-{number:04d}",
        "template": f"{part}-{frame}",
    }


def statements(decision: str, blocks: Sequence[Block], random_: random.Random) -> list[Block]:
    """Two statements on different topics; where they disagree, the topic that ranks higher speaks for `decision`."""
    topics = sorted(random_.sample(RANK, 2), key=RANK.index)
    sides = [decision, OTHER[decision] if random_.random() < MIXED else decision]
    chosen = list(zip(topics, sides, strict=True))
    random_.shuffle(chosen)
    return [random_.choice([b for b in blocks if (b.topic, b.decision) == pair]) for pair in chosen]


if __name__ == "__main__":
    main()
