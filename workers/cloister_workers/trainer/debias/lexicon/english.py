# SPDX-License-Identifier: Apache-2.0
"""English: `her` is `his` or `him`, `his` is `her` or `hers`, and `a` or `an` follows the next word.

The rule looks at up to two tokens behind the pronoun and one before it, with closed lists of words. It is our own;
`tests/unit/trainer/debias/test_swapping.py` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloister_workers.trainer.debias.lexicon import english_words as words
from cloister_workers.trainer.debias.lexicon.grammar import Reading
from cloister_workers.trainer.debias.lexicon.matching import Token
from cloister_workers.trainer.debias.lexicon.terms import SwapSet

_QUOTES = frozenset("\"'“‘(")


@dataclass(frozen=True)
class _Place:
    """A pronoun with its neighbours in lower case, "" where there is none and "." for any sign."""

    word: str
    before: str
    next: str
    then: str
    compound: bool
    """Whether the next word is joined to another by a hyphen: her up-to-date map."""

    @property
    def then_stops(self) -> bool:
        """Whether the phrase is over behind the next word."""
        return self.then in ("", ".") or self.then in words.STOPS


class English:
    """Rules of English."""

    def reading(self, tokens: Sequence[Token], first: int, last: int, entry: SwapSet) -> Reading:
        """A term as it stands, save `s/he`, which speaks of both."""
        if entry.tag == "function" and first >= 2 and tokens[first - 1].text == "/" and tokens[first - 2].text in "sS":
            return Reading.OTHER
        return Reading.TERM

    def use(self, tokens: Sequence[Token], at: int) -> str:
        """`dependent` for her book and his book, `object` for saw her, `independent` for is his."""
        place = _place(tokens, at)
        if place.word == "his":
            return "dependent" if _his_depends(place) else "independent"
        return "dependent" if _her_depends(place) else "object"

    def article(self, article: str, old: str, new: str) -> str:
        lower = article.lower()
        if lower not in ("a", "an") or lower != _article_for(old) or lower == _article_for(new):
            return article
        if lower == "an":
            return article[0]
        return "AN" if article == "A" and len(new) > 1 and new.isupper() else f"{article}n"


def _article_for(word: str) -> str:
    lower = word.lower()
    if lower.startswith(words.SILENT_H):
        return "an"
    return "an" if lower[0] in "aeiou" and not lower.startswith(words.CONSONANT_SOUND) else "a"


def _place(tokens: Sequence[Token], at: int) -> _Place:
    behind = at + 1
    if behind < len(tokens) and tokens[behind].text in _QUOTES and tokens[behind].start > tokens[at].end:
        behind += 1  # her "friend": the quotation goes on with the phrase
    last = behind
    compound = False
    while last + 2 < len(tokens) and tokens[last + 1].text == "-" and tokens[last + 1].start == tokens[last].end:
        last, compound = last + 2, True
    return _Place(
        word=tokens[at].lower,
        before=_plain(tokens, at - 1),
        next=_plain(tokens, behind),
        then=_plain(tokens, last + 1),
        compound=compound,
    )


def _plain(tokens: Sequence[Token], at: int) -> str:
    if not 0 <= at < len(tokens):
        return ""
    return tokens[at].lower if tokens[at].is_word else "."


def _his_depends(place: _Place) -> bool:
    if place.next in ("", "."):
        return False
    if place.compound or place.next in words.OPEN_PHRASE:
        return True
    if place.next in ("and", "or") and place.then in words.POSSESSIVES:
        return True  # his and her rights
    return place.next not in words.STOPS and place.next != "alone"


def _her_depends(place: _Place) -> bool:
    if place.next in ("", "."):
        return False
    if place.compound or place.next in ("own", "very"):
        return place.next != "very" or place.then not in ("much", "often", "well", ".", "")
    if place.next in words.STOPS or place.next in words.BARE_ADVERBS:
        return False
    if place.before in ("", "."):
        return True  # her last week was quiet: an object hardly ever opens a clause
    return not (
        _adverb_ends(place) or _time_follows(place) or _verb_follows(place) or _state_follows(place) or _gift(place)
    )


def _adverb_ends(place: _Place) -> bool:
    """Loved her dearly; called her back; knows her best. But: did her best, hurt her back."""
    if place.next == "back":
        return place.before in words.TAKES_BACK
    if place.next == "home":
        return place.before in words.TAKES_HOME
    if place.next in words.BEFORE_NOUN_PHRASE and place.then in words.DETERMINERS:
        return True
    if not place.then_stops:
        return False
    if place.next in words.END_ADVERBS:
        return place.before not in words.DOES_BEST
    return place.next.endswith("ly") and place.next not in words.NOT_ADVERBS


def _time_follows(place: _Place) -> bool:
    """Saw her last week, met her one day, rings her every evening. But: during her last week."""
    timed = place.next in words.TIME_OPENERS and place.then in words.TIMES
    return place.next in words.DAYS or (timed and place.before not in words.SPANS)


def _verb_follows(place: _Place) -> bool:
    """Made her laugh; saw her walking; the man beside her smiled; those who know her say."""
    if place.next in words.FINITE_VERBS:
        return True
    if place.next in words.MODAL_NOUNS:
        return place.then in words.BASE_VERBS or place.then in ("be", "have", "not", "never", "always", "soon")
    if place.before in words.TAKES_INFINITIVE and place.next in words.BASE_VERBS:
        return True
    if place.before in words.TAKES_PARTICIPLE and place.next.endswith("ing"):
        return place.next not in words.NOUNS_IN_ING
    if place.before not in words.PLACES:
        return False
    return place.next in words.SAY_VERBS or (place.next in words.PAST_VERBS and place.then_stops)


def _state_follows(place: _Place) -> bool:
    """Made her happy; kept her awake; left her speechless."""
    if place.before not in words.TAKES_STATE:
        return False
    if place.next in words.DEGREES:
        return True
    state = place.next in words.STATES or place.next.endswith(words.STATE_ENDINGS)
    return state and place.next not in words.NOT_STATES and place.then_stops


def _gift(place: _Place) -> bool:
    """Gave her flowers; cost her two years; offered her legal advice. But: gave her money to charity."""
    if place.before in words.LASTS and place.next in words.SPELLS:
        return True  # took her years to learn
    if place.before not in words.GIVES or place.then == "to":
        return False
    if place.then in words.GIFTS and place.next not in words.END_ADVERBS:
        return True
    return place.next in words.GIFTS or place.next in words.NUMBERS or place.next.isdigit()
