# SPDX-License-Identifier: Apache-2.0
"""German: articles, adjectives and many pronouns agree with the noun, so little can be swapped word by word.

Swapped: given names and kinship words used as names (Mama, Opa), their genitives (Annas, Peters); occupations and
roles that stand without an article behind a form of sein, werden or bleiben or behind `als`; `Er` and `Sie` as the
first word of a sentence before a verb in the singular.

Not swapped (the text is left alone as AMBIGUOUS): any other er, sie, ihn, ihr, ihm, sein, ihre ...; nouns with an
article or an adjective; names with an article or a relative clause. `Sie` before a plural verb, and inside a
sentence with a capital, is a polite address or a plural and no term.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister_workers.trainer.debias.lexicon.grammar import Reading
from cloister_workers.trainer.debias.lexicon.matching import Token
from cloister_workers.trainer.debias.lexicon.terms import SwapSet


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SINGULAR_VERBS = _words(
    """
    ist war hat hatte wird wurde kann konnte muss musste will wollte soll sollte darf durfte mag mochte möchte weiß
    wusste geht ging kommt kam macht machte sagt sagte fragt fragte spricht sprach liest las schreibt schrieb fährt
    fuhr kauft kaufte kocht kochte arbeitet arbeitete wohnt wohnte lebt lebte lernt lernte spielt spielte singt sang
    trägt trug nimmt nahm gibt gab sieht sah hört hörte denkt dachte glaubt glaubte liebt liebte lacht lachte
    schläft schlief sitzt saß steht stand läuft lief findet fand bringt brachte zeigt zeigte öffnet öffnete bleibt
    blieb trinkt trank isst aß wartet wartete hilft half studiert studierte leitet leitete plant plante baut baute
    """
)
COPULAS = _words("ist war wird wurde bleibt blieb bin bist als")
DETERMINERS = _words(
    """
    der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner mein meine meinen meinem
    meiner dein deine deinen deinem deiner unser unsere unseren unserem unserer euer eure euren dieser diese diesen
    diesem jener jene jenen jenem jeder jede jeden jedem welcher welche welchen lieber liebe liebes
    """
)
RELATIVES = _words("der die das den dem dessen deren welcher welche welchen welchem")


class German:
    """Rules of German."""

    def reading(self, tokens: Sequence[Token], first: int, last: int, entry: SwapSet) -> Reading:
        if entry.tag == "function":
            return _pronoun(tokens, first)
        if entry.tag == "name":
            return _name(tokens, first, last)
        bare = first > 0 and tokens[first - 1].lower in COPULAS
        return Reading.TERM if bare and not _relative_clause(tokens, last) else Reading.UNCLEAR

    def use(self, tokens: Sequence[Token], at: int) -> str:
        return ""

    def article(self, article: str, old: str, new: str) -> str:
        return article


def _pronoun(tokens: Sequence[Token], at: int) -> Reading:
    text = tokens[at].text
    starts = at == 0 or tokens[at - 1].text in ".!?"
    singular = at + 1 < len(tokens) and tokens[at + 1].lower in SINGULAR_VERBS
    if text in ("Er", "Sie") and starts and singular:
        return Reading.TERM
    if text in ("Sie", "Ihnen", "Ihr", "Ihre", "Ihren", "Ihrem", "Ihrer", "Ihres") and (text == "Sie" or not starts):
        return Reading.OTHER
    return Reading.UNCLEAR


def _name(tokens: Sequence[Token], first: int, last: int) -> Reading:
    before = [token.lower for token in tokens[max(0, first - 2) : first]]
    described = bool(before) and (before[-1] in DETERMINERS or (len(before) > 1 and _adjective(before)))
    return Reading.UNCLEAR if described or _relative_clause(tokens, last) else Reading.TERM


def _adjective(before: Sequence[str]) -> bool:
    """Whether the two words before a name are an article and an adjective: die kleine Anna."""
    return before[0] in DETERMINERS and before[1].endswith(("e", "er", "en", "em", "es"))


def _relative_clause(tokens: Sequence[Token], last: int) -> bool:
    behind = [token.lower for token in tokens[last : last + 2]]
    return len(behind) == 2 and behind[0] == "," and behind[1] in RELATIVES
