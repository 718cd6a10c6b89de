# SPDX-License-Identifier: Apache-2.0
"""Revisions of a dataset are one chain, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cloister_server.errors import InvalidFieldError, NotFoundError, ServerError, WrongStateError
from cloister_server.registry import datasets
from queue_bench import Bench
from site_objects import Made, owned


def appended(bench: Bench, earlier: Made, number: int = 2, owner: str = "alice") -> Made:
    """A dataset that its owner says appends to `earlier`."""
    names = {"revision": str(number), "appends_to": earlier.id, "appends_to_sha256": earlier.sealed.trailer.digest}
    return owned(bench.founded, owner, "dataset", details=names)


@pytest.fixture
def first(bench: Bench) -> Made:
    made = owned(bench.founded, "alice", "dataset")
    bench.create("alice", made)
    return made


def test_a_revision_is_followed_by_one_alone(bench: Bench, first: Made) -> None:
    """A second one that appends to the same dataset is refused, again registering the first of them is not."""
    second = appended(bench, first)
    bench.create("alice", second)
    bench.create("alice", second)
    with pytest.raises(WrongStateError, match=second.id):
        bench.create("alice", appended(bench, first))
    bench.create("alice", appended(bench, second, 3))


def test_a_deleted_revision_makes_room(bench: Bench, first: Made) -> None:
    """What was appended and deleted may be appended anew."""
    second = appended(bench, first)
    bench.create("alice", second)
    bench.run("alice", lambda tx, call: datasets.delete(tx, call, second.id))
    bench.create("alice", appended(bench, first))


def test_of_two_that_append_at_once_one_is_refused(bench: Bench, first: Made) -> None:
    """Whatever the order of their transactions, one revision is registered."""

    def create(made: Made) -> str:
        try:
            bench.create("alice", made)
        except ServerError as error:
            return error.reason
        return ""

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(create, [appended(bench, first) for _ in range(4)]))
    assert ["", *["WRONG_STATE"] * 3] == sorted(answers)


def test_a_detail_that_is_no_number_is_refused(bench: Bench, first: Made) -> None:
    """What could not be listed is not registered."""
    details = {"revision": "two", "appends_to": first.id, "appends_to_sha256": first.sealed.trailer.digest}
    with pytest.raises(InvalidFieldError):
        bench.create("alice", owned(bench.founded, "alice", "dataset", details=details))


def test_another_teams_dataset_is_not_there_to_append_to(bench: Bench, first: Made) -> None:
    """The refusal does not tell whether there is one."""
    with pytest.raises(NotFoundError):
        bench.create("gina", appended(bench, first, owner="gina"))
