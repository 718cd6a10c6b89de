# SPDX-License-Identifier: Apache-2.0
"""Which root a roster counts for, once one root has named another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import Site
from cloister.evidence.errors import BindingError, EvidenceError, FormatError, SignatureError
from cloister.evidence.roster import ROSTER_TYPE, Roster, root_of, verify_roster
from cloister.evidence.signatures import SigningKey, Statement
from cloister.evidence.succession import SUCCESSION_TYPE, Succession, follow, sign_succession

NOW = 1_800_000_000
OLD, NEW, NEWEST, THIEF = (SigningKey(bytes([n]) * 32) for n in range(1, 5))
STEP = sign_succession("test", OLD, NEW, now=NOW)
NEXT_STEP = sign_succession("test", NEW, NEWEST, now=NOW)


def signed(by: SigningKey, *successions: Statement) -> Statement:
    roster = replace(Site(NOW).roster, successions=successions)
    return by.sign(ROSTER_TYPE, roster.to_payload())


def checked(statement: Statement, pinned: SigningKey) -> Roster:
    return verify_roster(statement, pinned.public, seen_version=0, now=NOW)


def test_whoever_pins_an_earlier_root_follows() -> None:
    """From each root of the chain the newest one's roster verifies, and is what to pin from then on."""
    statement = signed(NEWEST, STEP, NEXT_STEP)
    for pinned in (OLD, NEW, NEWEST):
        assert NEWEST.public == root_of(checked(statement, pinned), pinned.public)


def test_the_old_root_signs_nothing_more() -> None:
    """A roster by the old root is refused where the new one is pinned, and where it names the new one itself."""
    with pytest.raises(SignatureError):
        checked(signed(OLD), NEW)
    with pytest.raises(SignatureError):
        checked(signed(OLD, STEP), OLD)


def test_a_thief_of_the_old_root_reaches_nobody_who_has_followed() -> None:
    """Another successor that the old root names is nothing to whoever pins the true one."""
    stolen = sign_succession("test", OLD, THIEF, now=NOW)
    for chain in ((stolen,), (STEP, stolen), (stolen, STEP)):
        with pytest.raises(SignatureError):
            checked(signed(THIEF, *chain), NEW)


def test_a_root_that_was_not_named_is_another_site() -> None:
    """A succession counts with both signatures, for this site, and only from the pinned root."""
    payload = Succession("test", OLD.public, THIEF.public, NOW).to_payload()
    own_word = THIEF.sign(SUCCESSION_TYPE, payload)
    old_word = OLD.sign(SUCCESSION_TYPE, payload)
    for forged in (own_word, old_word, sign_succession("test", THIEF, NEW, now=NOW)):
        with pytest.raises(SignatureError):
            checked(signed(THIEF, forged), OLD)
    with pytest.raises(BindingError):
        checked(signed(NEW, sign_succession("other", OLD, NEW, now=NOW)), OLD)


def test_a_changed_succession_does_not_verify() -> None:
    """Whatever is changed in it, neither signature holds."""
    changed = replace(STEP, payload=Succession("test", OLD.public, THIEF.public, NOW).to_payload())
    with pytest.raises(SignatureError):
        follow(OLD.public, (changed,), "test")


@pytest.mark.parametrize("count", [0, 17])
def test_a_roster_names_successions_or_none(count: int) -> None:
    """An empty list, or an endless one, is not written that way."""
    from cloister.evidence.canonical import canonical_bytes, parse_canonical
    from cloister.evidence.signatures import b64

    document = parse_canonical(Site(NOW).roster.to_payload())
    assert isinstance(document, dict)
    assert "successions" not in document
    payload = canonical_bytes({**document, "successions": [b64(STEP.to_bytes())] * count})
    with pytest.raises(FormatError, match="successions"):
        Roster.parse(payload)


def test_a_key_does_not_succeed_itself() -> None:
    """Old and new are two keys of 32 bytes."""
    for old, new in ((OLD.public, OLD.public), (b"short", NEW.public)):
        with pytest.raises(EvidenceError):
            Succession.parse(Succession("test", old, new, NOW).to_payload())
