# SPDX-License-Identifier: Apache-2.0
"""A log that was restored from a backup: the root's word lets a client follow once, and nothing else does."""

from __future__ import annotations

import pytest

from cloister.admin.draft import add_restoration
from cloister.admin.log_key import make_log_key
from cloister.admin.sign import sign_next
from cloister.errors import UsageError
from cloister.evidence.checkpoint import Checkpoint, sign_checkpoint
from cloister.evidence.errors import ForkError, RollbackError
from cloister.evidence.roster import Roster
from cloister.site import remembered_checkpoint
from memory_site import MemorySite
from set_clock import NOW


def grow(site: MemorySite, entries: int) -> None:
    for _ in range(entries):
        site.log("job.read")


def cut(site: MemorySite, size: int) -> bytes:
    """Go back to a backup of so many entries, and sign the head there as `restore` does."""
    del site.entries[size:]
    note = site.checkpoint()
    site.log("site.restore")
    return note


def sign_restored(site: MemorySite, note: bytes) -> None:
    site.custody.save_draft(add_restoration(site.custody.draft(), note))
    site.roster = sign_next(site.custody, 30, now=NOW)


def remembered(site: MemorySite) -> Checkpoint:
    head = remembered_checkpoint(site.homes["anna"].state())
    assert head is not None
    return head


def test_a_restored_log_is_followed_when_the_root_says_so(site: MemorySite) -> None:
    """Without the root's word a shorter log is refused; with it the client goes on from the restored head."""
    grow(site, 8)
    site.client().site.refresh()
    note = cut(site, 5)
    with pytest.raises(RollbackError):
        site.client().site.refresh()
    sign_restored(site, note)
    site.client().site.refresh()
    assert len(site.entries) == remembered(site).size


def test_a_longer_restored_log_is_followed_as_well(site: MemorySite) -> None:
    """A restored log that has grown past what the client remembers looks forked, and is accepted by the root's word."""
    grow(site, 8)
    site.client().site.refresh()
    note = cut(site, 5)
    grow(site, 20)
    with pytest.raises(ForkError):
        site.client().site.refresh()
    sign_restored(site, note)
    site.client().site.refresh()
    assert len(site.entries) == remembered(site).size


def test_a_restored_head_is_accepted_once(site: MemorySite) -> None:
    """A control plane that goes back to the same head a second time is refused: the root's word is used up."""
    grow(site, 8)
    site.client().site.refresh()
    sign_restored(site, cut(site, 5))
    site.client().site.refresh()
    grow(site, 10)
    site.client().site.refresh()
    cut(site, 5)
    with pytest.raises(RollbackError):
        site.client().site.refresh()


def test_a_restored_head_is_used_up_by_those_who_lost_nothing(site: MemorySite) -> None:
    """A client that remembered no more than the backup cannot be led back to its head later either."""
    site.client().site.refresh()
    grow(site, 8)
    sign_restored(site, cut(site, 5))
    site.client().site.refresh()
    grow(site, 10)
    site.client().site.refresh()
    cut(site, 5)
    with pytest.raises(RollbackError):
        site.client().site.refresh()


def test_what_lies_before_the_restored_head_stays_protected(site: MemorySite) -> None:
    """The root's word does not cover another past: the log must extend the head that it names."""
    grow(site, 8)
    site.client().site.refresh()
    sign_restored(site, cut(site, 5))
    site.entries[2] = site.entries[2].replace(b"job.read", b"job.list")
    grow(site, 10)
    with pytest.raises(ForkError):
        site.client().site.refresh()


def test_a_log_restored_twice_is_followed(site: MemorySite) -> None:
    """A client that missed the first restore accepts both, the earlier head counting."""
    grow(site, 8)
    site.client().site.refresh()
    first = cut(site, 6)
    grow(site, 3)
    sign_restored(site, first)
    sign_restored(site, cut(site, 4))
    site.client().site.refresh()
    assert (len(site.entries), 2) == (remembered(site).size, site.homes["anna"].state().restorations)


def test_the_head_that_gave_way_is_kept_as_evidence(site: MemorySite) -> None:
    """What was remembered of the lost part stays in the home, still signed by the log's key."""
    grow(site, 8)
    site.client().site.refresh()
    lost = site.homes["anna"].state().checkpoint
    size = remembered(site).size
    sign_restored(site, cut(site, 5))
    site.client().site.refresh()
    assert lost == (site.homes["anna"].directory / f"set-aside-{size}.checkpoint").read_text()


def test_only_heads_of_the_log_are_named(site: MemorySite) -> None:
    """The custodian's tool refuses a head that another key signed, and the same one twice."""
    foreign = sign_checkpoint(Checkpoint("test/log", 1, b"r" * 32), make_log_key("test/log"))
    with pytest.raises(UsageError, match="not a head of this site's log"):
        add_restoration(site.custody.draft(), foreign)
    named = add_restoration(site.custody.draft(), site.checkpoint())
    with pytest.raises(UsageError, match="already"):
        add_restoration(named, site.checkpoint())


def test_a_roster_of_a_log_that_was_never_restored_is_as_before(site: MemorySite) -> None:
    """The field is left out where it has nothing to say, so that older clients read the roster."""
    assert b"restored" not in site.roster.payload
    sign_restored(site, cut(site, 1))
    assert 1 == len(Roster.parse(site.roster.payload).log_restored)
