# SPDX-License-Identifier: Apache-2.0
"""Rows and word lists are divided so that nothing of one part is in another."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_workers.trainer.debias.dividing import Role, Ties, deal, fixed_draw, seeded_draw
from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet, axes, languages, load_lexicon
from cloister_workers.trainer.debias.lexicon.rows import Swap
from cloister_workers.trainer.debias.material import Material, Part, RowType
from cloister_workers.trainer.debias.partition import SHARES, divide_lexicons, divide_rows, make_partition
from cloister_workers.trainer.debias.shapes import Labelled, Pair, Text
from cloister_workers.trainer.debias.swapping import NotSwapped, Swapped, Swapper, Why

ALL = [{axis: load_lexicon(axis, language) for axis in axes(language)} for language in languages()]


@pytest.fixture(params=ALL, ids=languages())
def lexicons(request: pytest.FixtureRequest) -> Mapping[str, Lexicon]:
    every: Mapping[str, Lexicon] = request.param
    return every


def words(lexicon: Lexicon) -> set[str]:
    return {word.casefold() for group in lexicon.terms().values() for word in group}


def texts(lexicon: Lexicon) -> list[set[str]]:
    attributes = {word for entry in lexicon.associations for word in (*entry.first, *entry.second)}
    return [attributes, set(lexicon.templates), set(lexicon.pair_templates), set(lexicon.neutral)]


def keys(part: Part) -> set[str]:
    return {key for rows in part.rows.rows.values() for row in rows for key in row.keys()}  # noqa: SIM118 - a method


# ---------------------------------------------------------------- word lists
def test_parts_share_no_word_and_no_sentence(lexicons):
    """Over all axes at once no content word, name, attribute, template or neutral sentence is in two parts."""
    divided = divide_lexicons(lexicons)
    for one, other in combinations(Role, 2):
        for first in divided[one].values():
            for second in divided[other].values():
                assert words(first) & words(second) == set()
                for mine, theirs in zip(texts(first), texts(second), strict=True):
                    assert mine & theirs == set()


def test_nothing_is_lost_and_function_words_are_everywhere(lexicons):
    """The parts together are the whole; each knows the words of the others as held out, and all function words."""
    divided = divide_lexicons(lexicons)
    for axis, whole in lexicons.items():
        parts = [divided[role][axis] for role in Role]
        assert set().union(*map(words, parts)) == words(whole)
        for index, together in enumerate(zip(*map(texts, parts), strict=True)):
            assert set().union(*together) == texts(whole)[index]
        for part in parts:
            assert set(part.held_out) | set(part.content()) == set(whole.content())
            assert [entry for entry in part.swaps if entry.tag == "function"] == [
                entry for entry in whole.swaps if entry.tag == "function"
            ]


def test_every_list_keeps_its_shares(lexicons):
    """About 40, 20 and 40 in a hundred of each list go to fit, validation and test."""
    divided = divide_lexicons(lexicons)
    for axis, whole in lexicons.items():
        for role, share in SHARES.items():
            part = divided[role][axis]
            for group, terms in part.terms().items():
                assert len(terms) / len(whole.terms()[group]) == pytest.approx(share, abs=0.05)
            assert len(part.names) == pytest.approx(share * len(whole.names), abs=2)
            assert len(part.persons()) == pytest.approx(share * len(whole.persons()), abs=2)
            for mine, total in zip(part.associations, whole.associations, strict=True):
                assert len(mine.first) == pytest.approx(share * len(total.first), abs=2)
                assert len(mine.second) == pytest.approx(share * len(total.second), abs=2)
            for name in ("templates", "pair_templates", "neutral"):
                assert len(getattr(part, name)) == pytest.approx(share * len(getattr(whole, name)), abs=2)


def test_fit_and_test_have_enough():
    """What is fitted on and what is measured on have at least 25 English words a group and 10 attributes a list."""
    divided = divide_lexicons({axis: load_lexicon(axis, "en") for axis in axes("en")})
    for role in (Role.FIT, Role.TEST):
        for lexicon in divided[role].values():
            assert min(map(len, lexicon.terms().values())) >= 25
            assert min(len(side) for entry in lexicon.associations for side in (entry.first, entry.second)) >= 10
            assert len(lexicon.persons()) >= 10


def test_forms_of_a_word_stay_together():
    """Singular and plural, and all counterparts of a word, are in one part."""
    lexicon = load_lexicon("gender", "en")
    divided = divide_lexicons({"gender": lexicon})
    homes = {word: role for role in Role for word in words(divided[role]["gender"])}
    for together in (
        ("uncle", "uncles"),
        ("wife", "wives"),
        ("lady", "ladies"),
        ("policeman", "policemen"),
        ("actress", "actresses"),
        ("dad", "mum", "mom", "dads"),
        ("baroness", "baron"),
    ):
        assert len({homes[word] for word in together if word in homes}) == 1


def test_words_in_two_axes_stay_together():
    """A word that users put on two axes is in the same part of both."""
    first = [SwapSet((f"a{i}", f"b{i}")) for i in range(40)]
    second = [SwapSet((f"x{i}", f"a{i}")) for i in range(40)]
    divided = divide_lexicons(
        {"p": Lexicon("p", "en", ("g", "h"), tuple(first)), "q": Lexicon("q", "en", ("g", "h"), tuple(second))}
    )
    for role in Role:
        mine, other = divided[role]["p"], divided[role]["q"]
        assert {word for word in words(mine) if word.startswith("a")} == {
            word for word in words(other) if word.startswith("a")
        }


def test_the_division_of_words_is_fixed():
    """The order of the lists does not move a word, and the first words of fit are these for good."""
    lexicon = load_lexicon("religion", "en")
    turned = replace(lexicon, swaps=lexicon.swaps[::-1], neutral=lexicon.neutral[::-1])
    for role in Role:
        straight = divide_lexicons({"religion": lexicon})[role]["religion"]
        back = divide_lexicons({"religion": turned})[role]["religion"]
        assert words(straight) == words(back)
        assert straight.neutral == back.neutral[::-1]
    assert fixed_draw("words")("uncle|aunt").hex()[:8] == "4c641781"


# ---------------------------------------------------------------- swapping with a part
def test_a_part_swaps_with_its_own_words_alone():
    """Every content word that a part's swapper replaces or writes is of that part; texts with others are refused."""
    lexicon = load_lexicon("gender", "en")
    divided = divide_lexicons({"gender": lexicon})
    reasons = set()
    for role in Role:
        part = divided[role]["gender"]
        swapper = Swapper({"gender": part})
        for entry in lexicon.content():
            for word in entry.words:
                found = swapper.swap(f"It is said of {word} that she laughed.", "gender")
                if word.casefold() in words(part):
                    assert isinstance(found, Swapped)
                    assert set(found.replaced) <= {word, "she"}
                    assert {term.held_out for term in swapper.terms_in(found.text, "gender")} == {False}
                else:
                    assert isinstance(found, NotSwapped)
                    reasons.add(found.reason)
    assert reasons == {Why.HELD_OUT}


# ---------------------------------------------------------------- rows
def rows_of(seed: int, count: int) -> list[RowType]:
    """Rows of three kinds, some of which share texts, templates and persons."""
    draw = random.Random(seed)
    found: list[RowType] = []
    for _ in range(count):
        template = draw.choice(["", f"t{draw.randrange(count)}"])
        person = draw.choice(["", "", f"p{draw.randrange(count)}"])
        text = f"text {draw.randrange(3 * count)}"
        labelled = Labelled(text, draw.choice("ab"), {"gender": draw.choice(["male", "female"])}, person, template)
        pair = Pair("gender", text, f"text {draw.randrange(3 * count)}", template)
        choices: list[RowType] = [Text(text), labelled, pair]
        found.append(draw.choice(choices))
    return found


def kinds(rows: Iterable[RowType]) -> Material:
    return Material.from_rows(rows)


@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 15), st.integers(0, 15)),
    fractions=st.tuples(st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.2, 0.5])),
)
def test_parts_share_no_key(seed, sizes, fractions):
    """Whatever the datasets, no text, template or person is in two parts, and every row is kept or counted."""
    training, validation, evaluation = (rows_of(seed + i, size) for i, size in enumerate(sizes))
    parts = make_partition(
        training,
        validation,
        evaluation,
        {},
        seed=seed,
        validation_fraction=fractions[0],
        evaluation_fraction=fractions[1],
    )
    three = (parts.fit, parts.validation, parts.test)
    for one, other in combinations(three, 2):
        assert keys(one) & keys(other) == set()
    kept = sum(len(rows) for part in three for rows in part.rows.rows.values())
    assert kept + parts.dropped == sum(sizes)
    if evaluation:
        assert parts.test.rows == kinds(evaluation)


def test_rows_tied_to_the_test_are_dropped():
    """Of rows that hang together, over others too, those of the evaluation dataset stay and the rest is counted."""
    training = [
        Labelled("a", "x", {}, person="p1"),
        Labelled("b", "x", {}, person="p1", template="t1"),
        Labelled("c", "x", {}),
    ]
    validation = [Text("b"), Text("d")]
    evaluation = [Labelled("e", "x", {}, template="t1")]
    parts = make_partition(training, validation, evaluation, {}, seed=0)
    assert parts.fit.rows.of(Labelled) == (training[2],)
    assert parts.validation.rows.of(Text) == (validation[1],)
    assert parts.test.rows.of(Labelled) == tuple(evaluation)
    assert parts.dropped == 3


def test_the_evaluation_dataset_is_the_test_whatever_the_fraction():
    """Fractions are for parts without a dataset of their own."""
    training = [Text(f"train {i}") for i in range(100)]
    evaluation = [Text(f"test {i}") for i in range(7)]
    parts = make_partition(training, [], evaluation, {}, seed=1, validation_fraction=0.2, evaluation_fraction=0.5)
    assert parts.test.rows.of(Text) == tuple(evaluation)
    assert len(parts.validation.rows.of(Text)) == 20
    assert len(parts.fit.rows.of(Text)) == 80
    assert parts.dropped == 0


def test_a_fraction_keeps_labels_and_groups_in_proportion():
    """Without an evaluation dataset each label of each group gives its fraction, drawn anew by each seed."""
    training = [
        Labelled(f"text {i}", "yes" if i % 10 else "no", {"gender": "male" if i % 3 else "female"}) for i in range(300)
    ]
    shares = {Role.FIT: 0.7, Role.VALIDATION: 0.1, Role.TEST: 0.2}
    seen = []
    for seed in (1, 2, 1):
        parts = make_partition(training, [], [], {}, seed=seed, validation_fraction=0.1, evaluation_fraction=0.2)
        seen.append(parts.test.rows.of(Labelled))
        for role, part in zip(Role, (parts.fit, parts.validation, parts.test), strict=True):
            for label in ("yes", "no"):
                for group in ("male", "female"):
                    having = [
                        sum(row.label == label and row.groups["gender"] == group for row in rows)
                        for rows in (part.rows.of(Labelled), training)
                    ]
                    assert having[0] == pytest.approx(shares[role] * having[1], abs=1)
    assert seen[0] == seen[2] != seen[1]


def test_rows_stay_in_their_order():
    """Each part has its rows in the order in which they came."""
    rows = [Text(f"{i:03}") for i in range(60)]
    divided = divide_rows(rows, [Role.FIT] * 60, seed=5, validation_fraction=0.2, evaluation_fraction=0.3)
    for part in divided.rows.values():
        assert [row.keys() for row in part] == sorted(row.keys() for row in part)
    assert [len(divided.rows[role]) for role in Role] == [30, 12, 18]


def test_users_words_are_divided_with_the_others():
    """Rows of kind `swap` of any dataset extend the lexicons before these are divided and are rows of no part."""
    rows = [Swap("diet", ("meat", "plants"), (f"beef{i}", f"bean{i}")) for i in range(50)]
    parts = make_partition(
        [*rows[:25], Text("x")],
        [],
        rows[25:],
        {"age": load_lexicon("age", "en")},
        seed=3,
        validation_fraction=0.0,
        evaluation_fraction=0.0,
    )
    assert [len(part.lexicons["diet"].swaps) for part in (parts.fit, parts.validation, parts.test)] == [20, 10, 20]
    assert len(parts.lexicons["diet"].swaps) == 50
    assert parts.fit.rows.of(Swap) == ()
    assert parts.fit.rows.of(Text) == (Text("x"),)
    assert parts.dropped == 0


def test_few_rows_that_name_test_words_stay_and_are_counted():
    """Where too few rows would be left they stay in the fit part, and the report can say how many there are."""
    lexicon = load_lexicon("gender", "en")
    divided = divide_lexicons({"gender": lexicon})
    mine, theirs = (divided[role]["gender"].names[0].words[0] for role in (Role.FIT, Role.TEST))
    training = [Text(f"{mine} slept."), Text(f"{theirs} slept."), Text(f"{theirs} met {mine}."), Text("It rained.")]
    parts = make_partition(
        training, [], [], {"gender": lexicon}, seed=0, validation_fraction=0.0, evaluation_fraction=0.0
    )
    assert (parts.crossing, parts.left_out) == (2, 0)
    assert parts.fit.rows.of(Text) == tuple(training)


# ---------------------------------------------------------------- the pieces
@given(st.lists(st.sets(st.integers(0, 15), max_size=3), max_size=25))
def test_ties_are_the_connected_parts_of_a_graph(sets):
    """Positions are together exactly if a chain of shared keys joins them, as a plain search finds."""
    groups = Ties(sets).groups()
    assert sorted(at for group in groups for at in group) == list(range(len(sets)))
    for start in range(len(sets)):
        reached, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            new = {at for at, other in enumerate(sets) if other & sets[here]} - reached
            reached |= new
            waiting += new
        assert next(group for group in groups if start in group) == sorted(reached)


@given(
    weights=st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1), max_size=60),
    seed=st.integers(0, 99),
)
def test_dealing_depends_on_the_units_alone(weights, seed):
    """The order in which units are given does not matter, and every unit gets a part."""
    units = [(f"u{i}", weight) for i, weight in enumerate(weights)]
    roles = dict(zip((name for name, _ in units), deal(units, SHARES, seeded_draw(seed)), strict=True))
    turned = units[::-1]
    assert dict(zip((name for name, _ in turned), deal(turned, SHARES, seeded_draw(seed)), strict=True)) == roles


@given(count=st.integers(0, 200), seed=st.integers(0, 99))
def test_equal_units_are_dealt_to_the_exact_shares(count, seed):
    """A list of equal units misses each share by less than one unit."""
    units = [(f"u{i}", {"list": 1}) for i in range(count)]
    roles = deal(units, SHARES, seeded_draw(seed))
    for role, share in SHARES.items():
        assert abs(roles.count(role) - share * count) < 1
