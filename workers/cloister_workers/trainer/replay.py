# SPDX-License-Identifier: Apache-2.0
"""Earlier rows beside new ones, against forgetting.

A share of the replay rows, the specification's evaluation_fraction, is held out: how well the model still does on
them is measured before and after. Of the rest so many are mixed into training that they make up replay_ratio of the
training examples (Rolnick et al. 2019, arXiv:1811.11682), or all of them where there are fewer. Which ones, the seed
decides.
"""

from __future__ import annotations

from dataclasses import replace

from cloister_workers.trainer.example import Example
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.spec import Data
from cloister_workers.trainer.split import split_rows

_HELD_OUT = 0.2
"""Where the specification holds nothing out of its training rows: an evaluation dataset is named."""


def with_replay(parts: Parts, earlier: tuple[Example, ...], seed: int, data: Data) -> tuple[Parts, tuple[Example, ...]]:
    """The parts with earlier examples mixed in behind the new ones, and which those are.

    An earlier row whose input stands in another part is left out of both uses.
    """
    if not earlier:
        return parts, ()
    taken = {example.group for part in (parts.training, parts.validation, parts.evaluation) for example in part}
    usable = [example for example in earlier if example.group not in taken]
    split = split_rows([example.group for example in usable], seed, 0.0, data.evaluation_fraction or _HELD_OUT)
    pool = [usable[index] for index in split.training]
    wanted = round(len(parts.training) * data.replay_ratio / (1 - data.replay_ratio))
    drawn = split_rows([example.digest for example in pool], seed, 0.0, min(1.0, wanted / max(1, len(pool))))
    repeated = tuple(pool[index] for index in drawn.evaluation)
    held_out = tuple(usable[index] for index in split.evaluation)
    return replace(parts, training=parts.training + repeated, replay=held_out), repeated
