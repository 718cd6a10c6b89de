# SPDX-License-Identifier: Apache-2.0
"""Earlier rows beside new ones, against forgetting.

How well the model still does on earlier rows is measured before and after on rows that it was never trained on.  Which
these are, the job that trained on the others decided: its split is repeated here, by the seed and the fractions that
the specification names (`replay_split`).  What that job held out for its evaluations is measured, where it held out
nothing for them its validation part, and where it trained on all rows nothing is.  Without such a job a share of the
replay rows is held out, the specification's evaluation_fraction.  What is held out stays so: a new row that repeats it
is not trained on, so that the next job may measure it too.

Of the rest so many are mixed into training that they make up replay_ratio of the training examples (Rolnick et al.
2019, arXiv:1811.11682), or all of them where there are fewer. Which ones, the seed decides.
"""

from __future__ import annotations

from dataclasses import replace

from cloister_workers.trainer.example import Example
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.spec import Data, ReplaySplit
from cloister_workers.trainer.split import groups_of, outside, split_examples, split_rows

HELD_OUT = 0.2
"""Where the specification holds nothing out of its training rows: an evaluation dataset is named. The client knows it
too (`cloister.replay`): from it and the specification it tells how an earlier job split its replay rows."""


def with_replay(parts: Parts, earlier: tuple[Example, ...], seed: int, data: Data) -> tuple[Parts, tuple[Example, ...]]:
    """The parts with earlier examples mixed in behind the new ones, and which those are.

    An earlier row whose input stands in another part is not mixed in.  The split comes first, over all rows that the
    earlier job had: it does not depend on what the new ones repeat.
    """
    if not earlier:
        return parts, ()
    own = ReplaySplit(seed=seed, evaluation_fraction=data.evaluation_fraction or HELD_OUT)
    cut = data.replay_split or own
    split = split_examples(earlier, cut.seed, cut.validation_fraction, cut.evaluation_fraction)
    held_out = split.evaluation or split.validation
    training = outside(parts.training, groups_of(held_out))
    pool = outside(split.training, groups_of(training, parts.validation, parts.evaluation))
    wanted = round(len(training) * data.replay_ratio / (1 - data.replay_ratio))
    drawn = split_rows([example.digest for example in pool], seed, 0.0, min(1.0, wanted / max(1, len(pool))))
    repeated = tuple(pool[index] for index in drawn.evaluation)
    return replace(parts, training=training + repeated, replay=held_out), repeated
