# SPDX-License-Identifier: Apache-2.0
"""Divides rows and word lists into what is fitted on, what is chosen on, and what is measured on.

Words, names, templates, attributes and neutral sentences go by a fixed hash, about 40, 20 and 40 in a hundred of
every list, so no seed can be tried until the test words please. Function words (he, her, Mr) are a closed class that
nobody can hold out: they stand in every part. Forms of a word (uncle, uncles) and words that share a set go together,
over all axes at once.

Rows go together where they share a text, a template or a person. A row of the training dataset that is tied to one of
the evaluation dataset is left out, and counted. So is a row to fit on or to choose by that names a word or name of the
test part, where enough rows are left without it (`crossing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloister_workers.trainer.debias.crossing import FEWEST_TO_CHOOSE, FEWEST_TO_FIT, AtHand, sift
from cloister_workers.trainer.debias.dividing import Role, Ties, deal, fixed_draw, seeded_draw
from cloister_workers.trainer.debias.lexicon.rows import Swap, with_user_words
from cloister_workers.trainer.debias.lexicon.terms import Association, Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part, RowType
from cloister_workers.trainer.debias.shapes import Labelled

SHARES: Mapping[Role, float] = {Role.FIT: 0.4, Role.VALIDATION: 0.2, Role.TEST: 0.4}
"""Of every word list."""


@dataclass(frozen=True)
class Partition:
    """Three parts that share no row, text, template or person, and whose word lists share no name or content word.

    Rows to fit on or to choose by name no word or name of the test part's lists of the mitigated axes, save the
    `crossing` ones. Rows of the test part may name words of the other lists: `at_hand` marks the items that do.
    """

    fit: Part
    validation: Part
    test: Part
    dropped: int
    """Rows left out because they are tied to a row of a stricter part."""
    left_out: int
    """Rows to fit on or to choose by that were left out because they name a word or name of the test part."""
    crossing: int
    """Such rows that stayed, because too few would be left. They are never swapped."""
    at_hand: AtHand
    lexicons: Mapping[str, Lexicon]
    """Undivided, with the users' words: for `check_sizes`."""


@dataclass(frozen=True)
class DividedRows:
    """Rows by part, in their order."""

    rows: Mapping[Role, tuple[RowType, ...]]
    dropped: int


def make_partition(  # noqa: PLR0913 - each is one fact of the job
    training_rows: Iterable[RowType],
    validation_rows: Iterable[RowType],
    evaluation_rows: Iterable[RowType],
    lexicons: Mapping[str, Lexicon],
    *,
    seed: int,
    language: str = "en",
    axes: Iterable[str] | None = None,
    validation_fraction: float = 0.1,
    evaluation_fraction: float = 0.2,
) -> Partition:
    """Divide everything that a job has.

    Rows of the evaluation dataset are the test part, those of the training dataset the fit part. Without a
    validation or an evaluation dataset, a fraction of the training rows takes its place, drawn by `seed` and with
    each kind, label and group in proportion. Rows of kind `swap` of any dataset extend `lexicons`, which are then
    divided by a fixed hash; they are rows of no part. `language` is that of an axis which users' words bring in.
    `axes` are those that are mitigated, for the rows that name a test word; all of them where it is None.
    """
    given = {
        Role.FIT: list(training_rows),
        Role.VALIDATION: list(validation_rows),
        Role.TEST: list(evaluation_rows),
    }
    swaps = [row for rows in given.values() for row in rows if isinstance(row, Swap)]
    whole = with_user_words(lexicons, swaps, language)
    rows = [(row, role) for role, entries in given.items() for row in entries if not isinstance(row, Swap)]
    divided = divide_rows(
        [row for row, _ in rows],
        [role for _, role in rows],
        seed=seed,
        validation_fraction=validation_fraction,
        evaluation_fraction=evaluation_fraction,
    )
    words = divide_lexicons(whole)
    mitigated = list(whole) if axes is None else list(dict.fromkeys(axes))
    test_words = {axis: lexicon for axis, lexicon in words[Role.TEST].items() if axis in mitigated}
    fit = sift(divided.rows[Role.FIT], test_words, mitigated, FEWEST_TO_FIT)
    validation = sift(divided.rows[Role.VALIDATION], test_words, mitigated, FEWEST_TO_CHOOSE)
    return Partition(
        fit=Part(Material.from_rows(fit.rows), words[Role.FIT]),
        validation=Part(Material.from_rows(validation.rows), words[Role.VALIDATION]),
        test=Part(Material.from_rows(divided.rows[Role.TEST]), words[Role.TEST]),
        dropped=divided.dropped,
        left_out=fit.left_out + validation.left_out,
        crossing=fit.crossing + validation.crossing,
        at_hand=AtHand(test_words, fit.shared | validation.shared),
        lexicons=whole,
    )


def divide_rows(
    rows: Sequence[RowType],
    roles: Sequence[Role],
    *,
    seed: int,
    validation_fraction: float,
    evaluation_fraction: float,
) -> DividedRows:
    """Rows of three datasets, `roles` saying of which each one is, without ties between parts.

    Of rows that hang together those of the strictest dataset stay and the others are dropped. A part without rows of
    its own gets its fraction of the training rows that are free; 0 asks for none.
    """
    together = [(group, max(roles[at] for at in group)) for group in Ties(row.keys() for row in rows).groups()]
    placed = {at: role for group, role in together for at in group if roles[at] == role}
    free = [group for group, role in together if role is Role.FIT]
    fractions = {Role.VALIDATION: validation_fraction, Role.TEST: evaluation_fraction}
    shares = {role: share for role, share in fractions.items() if role not in roles and share > 0}
    if shares:
        shares = {Role.FIT: 1 - sum(shares.values()), **shares}
        units = [
            (min(rows[group[0]].keys(), default=""), Counter(_stratum(rows[at]) for at in group)) for group in free
        ]
        for group, role in zip(free, deal(units, shares, seeded_draw(seed)), strict=True):
            placed.update(dict.fromkeys(group, role))
    kept = {role: tuple(rows[at] for at in sorted(placed) if placed[at] == role) for role in Role}
    return DividedRows(kept, len(rows) - len(placed))


def divide_lexicons(lexicons: Mapping[str, Lexicon]) -> Mapping[Role, Mapping[str, Lexicon]]:
    """Each part's share of each lexicon; `held_out` of a share has the words of the two others."""
    sets = [(axis, entry) for axis, lexicon in lexicons.items() for entry in lexicon.content()]
    homes = _roles_of_sets(sets)
    texts = {kind: _roles_of_texts(kind, lists) for kind, lists in _text_lists(lexicons).items()}

    def share(axis: str, lexicon: Lexicon, role: Role) -> Lexicon:
        def mine(entry: SwapSet) -> bool:
            return entry.tag == "function" or homes[axis, entry] == role

        def of(kind: str, entries: Iterable[str]) -> tuple[str, ...]:
            return tuple(entry for entry in entries if texts[kind][entry] == role)

        return replace(
            lexicon,
            swaps=tuple(filter(mine, lexicon.swaps)),
            names=tuple(filter(mine, lexicon.names)),
            associations=tuple(
                Association(entry.name, of("attribute", entry.first), of("attribute", entry.second))
                for entry in lexicon.associations
            ),
            templates=of("template", lexicon.templates),
            pair_templates=of("template", lexicon.pair_templates),
            neutral=of("neutral", lexicon.neutral),
            held_out=tuple(entry for entry in lexicon.content() if not mine(entry)),
        )

    return {role: {axis: share(axis, lexicon, role) for axis, lexicon in lexicons.items()} for role in Role}


def _roles_of_sets(sets: Sequence[tuple[str, SwapSet]]) -> dict[tuple[str, SwapSet], Role]:
    groups = Ties([_stem(word) for word in entry.words if word] for _, entry in sets).groups()
    units = [
        (
            min("|".join(sets[at][1].words) for at in group),
            Counter(f"{sets[at][0]}|{sets[at][1].tag}|{bool(sets[at][1].person)}" for at in group),
        )
        for group in groups
    ]
    roles = deal(units, SHARES, fixed_draw("words"))
    return {sets[at]: role for group, role in zip(groups, roles, strict=True) for at in group}


def _text_lists(lexicons: Mapping[str, Lexicon]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Kind to name of a list to its texts; a text that stands in several lists of a kind goes to one part."""
    found: dict[str, dict[str, tuple[str, ...]]] = {"attribute": {}, "template": {}, "neutral": {}}
    for axis, lexicon in lexicons.items():
        for entry in lexicon.associations:
            found["attribute"][f"{axis}|{entry.name}|1"] = entry.first
            found["attribute"][f"{axis}|{entry.name}|2"] = entry.second
        found["template"][f"{axis}|word"] = lexicon.templates
        found["template"][f"{axis}|pair"] = lexicon.pair_templates
        found["neutral"][axis] = lexicon.neutral
    return found


def _roles_of_texts(kind: str, lists: Mapping[str, tuple[str, ...]]) -> dict[str, Role]:
    members: dict[str, Counter[str]] = {}
    for name, texts in lists.items():
        for text in texts:
            members.setdefault(text, Counter())[name] += 1
    units = list(members.items())
    return dict(zip(members, deal(units, SHARES, fixed_draw(kind)), strict=True))


_ENDINGS: tuple[tuple[str, str], ...] = (("men", "man"), ("ies", "y"), ("wives", "wife"), ("es", "e"), ("s", ""))


def _stem(word: str) -> str:
    """A word without its plural ending, so that forms of one word hang together; not meant to be read."""
    lower = word.casefold()
    for ending, instead in _ENDINGS:
        if lower.endswith(ending) and len(lower) > len(ending) + 2:
            lower = lower.removesuffix(ending) + instead
            break
    return lower.removesuffix("e")


def _stratum(row: RowType) -> str:
    if isinstance(row, Labelled):
        return f"labelled|{row.label}|{sorted(row.groups.items())}"
    return type(row).__name__
