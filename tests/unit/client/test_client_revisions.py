# SPDX-License-Identifier: Apache-2.0
"""Revisions of a dataset: new rows as an object of their own, and a chain that the control plane cannot bend."""

from __future__ import annotations

import pytest

from cloister.api.v1 import datasets_pb2
from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.errors import NotFoundError, UsageError
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.manifest import Manifest
from cloister.evidence.revisions import Revision, revision_of


def manifest(made):
    return Manifest.parse(made.sealed.manifest)


@pytest.fixture
def later(tmp_path):
    """A file of three new rows."""
    path = tmp_path / "later.jsonl"
    path.write_text('{"text": "new", "label": "a"}\n' * 3)
    return path


@pytest.fixture
def chain(site, rows, later):
    """Two rows, then twice three."""
    client = site.client()
    first = client.datasets.push(rows, "notes", ["routing"])
    return [first, client.datasets.append(later, "notes"), client.datasets.append(later, "notes")]


def test_a_revision_names_the_one_before(site, chain):
    """It has its own id and rows alone, and the owner's word for what it goes on from."""
    first, second, third = map(manifest, chain)
    assert [1, 2, 3] == [revision_of(one).number for one in (first, second, third)]
    assert [first.id, second.id] == [revision_of(one).earlier_id for one in (second, third)]
    assert ("notes", ("routing",), "default") == (third.name, third.purposes, third.pool)
    found = site.client().datasets.revisions("notes")
    assert [third.id, second.id, first.id] == [one.manifest.id for one in found]
    assert [3, 3, 2] == [one.trailer.rows for one in found]


def test_a_name_means_the_newest_and_a_number_an_earlier_one(site, chain):
    """NAME is what is new, NAME@1 what was first; a number that is none says what there is."""
    datasets = site.client().datasets
    ids = [one.id for one in chain]
    assert ids[-1] == datasets.verified("notes").manifest.id
    assert ids == [datasets.verified(f"notes@{n}").manifest.id for n in (1, 2, 3)]
    assert ids == [datasets.get(f"notes@{n}").id for n in (1, 2, 3)]
    with pytest.raises(NotFoundError, match="has revisions 1 to 3, none of number 4"):
        datasets.verified("notes@4")


def test_a_job_learns_what_is_new_and_replays_what_was_before(site, chain, spec):
    """The specification that is signed holds the ids of the two revisions."""
    values = {**spec(), "training_dataset": "notes", "replay_dataset": "notes@1"}
    found = site.client().jobs.dry_run(values)
    assert (chain[2].id, chain[0].id) == (found.spec.training_dataset, found.spec.replay_dataset)


def test_a_name_has_one_chain(site, chain, later):
    """Rows are appended to the newest revision alone: another one would make two of the same number."""
    with pytest.raises(UsageError, match="notes@2 follows notes already"):
        site.client().datasets.append(later, "notes@1")
    assert 3 == len(site.datasets)


def test_purposes_may_be_said_anew(site, rows, later):
    """The new rows are the owner's to give, and other purposes are theirs to say."""
    client = site.client()
    client.datasets.push(rows, "notes", ["routing"])
    assert ["triage"] == list(client.datasets.append(later, "notes", ["triage"]).purposes)


def test_a_name_is_not_read_as_a_revision(site, rows):
    """A dataset cannot be called like another's revision."""
    with pytest.raises(UsageError, match="say a revision"):
        site.client().datasets.push(rows, "notes@2", ["routing"])


def test_an_earlier_revision_may_be_gone(site, chain):
    """What was deleted stays in the chain by its signature, and no job opens it."""
    client = site.client()
    client.datasets.delete(chain[0].id)
    assert chain[0].id == client.datasets.revisions("notes")[-1].manifest.id
    with pytest.raises(UsageError, match="is deleted"):
        client.datasets.verified("notes@1")


def test_another_object_in_the_chain_is_noticed(site, chain, rows):
    """A control plane that shows another dataset of the same name and owner as the earlier revision is refused."""
    other = site.client().datasets.push(rows, "notes", ["routing"])
    first = chain[0].id
    swapped = datasets_pb2.Dataset()
    swapped.CopyFrom(site.datasets[other.id])
    swapped.id = first
    site.datasets[first] = swapped
    with pytest.raises(BindingError, match="not the one that it appends to"):
        site.client().datasets.revisions(chain[2].id)


@pytest.mark.parametrize(
    "details",
    [
        {"revision": "2"},
        {"revision": "1", "appends_to": "d-1", "appends_to_sha256": "00" * 32},
        {"revision": "two", "appends_to": "d-1", "appends_to_sha256": "00" * 32},
        {"revision": "2", "appends_to": "d-1", "appends_to_sha256": "00"},
    ],
)
def test_half_a_revision_is_none(chain, details):
    """All three details are said together, in their form, or none of them."""
    said = manifest(chain[0])
    wrong = Manifest(**{**vars(said), "details": details})
    with pytest.raises(FormatError):
        revision_of(wrong)
    assert Revision(1) == revision_of(said)


@pytest.fixture
def dataset(site, monkeypatch, capsys):
    """Run `cloister dataset`: exit code, standard output, standard error."""
    monkeypatch.setattr(Client, "open", lambda home: site.client(home.name))

    def command(*arguments):
        home = ("--home", str(site.homes["anna"].directory))
        code = run("cloister", cli, ["dataset", *map(str, arguments), *home])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_the_command_appends_and_shows_the_chain(dataset, site, rows, later):
    """`push --appends` needs no name; `show` says what a revision builds on, newest first."""
    first = dataset("push", rows, "--name", "notes", "--purpose", "routing")[1].strip()
    second = dataset("push", later, "--appends", "notes")[1].strip()
    third = dataset("push", later, "--appends", "notes")[1].strip()
    code, out, _ = dataset("show", "notes")
    lines = [line.split() for line in out.splitlines()]
    assert (0, ["id", third], ["name", "notes@3"]) == (code, lines[0], lines[1])
    assert [["builds", "on", "@2", second], ["builds", "on", "@1", first]] == [x[:4] for x in lines if x[0] == "builds"]
    assert "builds on" not in dataset("show", "notes@1")[1]


@pytest.mark.parametrize("wrong", [("--appends", "notes", "--name", "x"), ("--name", "x"), ("--purpose", "p")])
def test_what_is_pushed_is_named_once(dataset, rows, site, wrong):
    """A new dataset has a name and a purpose, a revision has those of the one before."""
    code, out, err = dataset("push", rows, *wrong)
    assert (2, "", {}) == (code, out, site.datasets)
    assert "--appends" in err
