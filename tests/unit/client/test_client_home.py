# SPDX-License-Identifier: Apache-2.0
"""The home directory: private, never overwritten, and pinned."""

import json
import stat
import threading

import pytest

from cloister.admin.admit import admit_person
from cloister.channel import connect
from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import HomeError, UsageError
from cloister.files import create_private, new_output, replace_private
from cloister.home import Home, SiteState, install_welcome, keygen
from cloister.pipes import join
from set_clock import NOW


def test_modes(site):
    """The directory is closed to others and so is every file."""
    home = site.homes["anna"]
    assert 0o700 == stat.S_IMODE(home.directory.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in home.directory.iterdir() if path.is_file()}


def test_keys_are_never_overwritten(site):
    """A second keygen is refused and changes nothing."""
    home = site.homes["anna"]
    before = home.read("signing.key")
    with pytest.raises(HomeError, match="exists already"):
        keygen(home)
    assert before == home.read("signing.key")


def test_open_key_file_is_refused(site):
    """A key that others can read is not used."""
    home = site.homes["anna"]
    (home.directory / "signing.key").chmod(0o644)
    with pytest.raises(HomeError, match="chmod 600"):
        home.signing_key()


def test_missing_files_say_what_to_do(tmp_path):
    """Before keygen and enrolment each step is named."""
    with pytest.raises(HomeError, match="cloister keygen"):
        Home.at(tmp_path).signing_key()
    with pytest.raises(HomeError, match="cloister enroll"):
        Home.at(tmp_path).pins()


def test_welcome_of_another_key(site, tmp_path):
    """A certificate for another key is not installed."""
    other = Home.at(tmp_path / "other")
    keygen(other)
    request = EnrolmentRequest.from_json(site.homes["anna"].read("request.json"))
    welcome = Welcome(**{**WELCOME, "certificate_pem": site.homes["anna"].read("tls.crt").decode()})
    assert "person" == request.kind
    with pytest.raises(UsageError, match="not for the key"):
        install_welcome(other, welcome)
    assert not (other.directory / "site.json").exists()


WELCOME = {
    "site": "test",
    "endpoint": "localhost:1",
    "root_public": "AAAA",
    "ca_pem": "",
    "certificate_pem": "",
    "id": "anna",
    "kind": "person",
}


def test_another_root_is_refused(site, tmp_path):
    """A home that has pinned a root does not take another one."""
    from cloister.admin.draft import add_team
    from cloister.admin.root import create_root

    home = site.homes["anna"]
    evil = create_root(tmp_path / "evil", "test", clock=site.clock)
    evil.save_draft(add_team(evil.draft(), "alpha", site.custody.draft().teams[0].recovery_recipient))
    request = EnrolmentRequest.from_json(home.read("request.json"))
    welcome = admit_person(evil, request, "anna", "alpha", ["member"], now=NOW)
    pins = home.pins()
    with pytest.raises(HomeError, match="another root"):
        install_welcome(home, welcome)
    assert pins == home.pins()


def test_expired_certificate_is_named(site):
    """TLS would only say that the handshake failed; the client says why."""
    with pytest.raises(HomeError, match="expired on"):
        connect(site.homes["anna"], "localhost:1", NOW + 91 * 24 * 3600)
    with pytest.raises(HomeError, match="clock"):
        connect(site.homes["anna"], "localhost:1", NOW - 3600)


def test_damaged_state_is_not_taken_for_none(site):
    """A damaged state file stops the client: as an empty one it would let a rollback pass."""
    home = site.homes["anna"]
    (home.directory / "state.json").write_text("{}")
    with pytest.raises(HomeError, match="rollback"):
        home.state()


def test_state_round_trip(site):
    """What is saved is read again."""
    home = site.homes["anna"]
    state = SiteState(3, "note", {"standard": 2})
    with home.locked_state() as before:
        assert SiteState() == before
        home.save_state(state)
    assert state == home.state()


def test_state_lock_keeps_others_out(site):
    """While one command judges by the state, another waits."""
    home = site.homes["anna"]
    order = []

    def second():
        with home.locked_state():
            order.append("second")

    with home.locked_state():
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join()
    assert ["first", "second"] == order


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": 1}', json.dumps({**WELCOME, "kind": "alien"})])
def test_malformed_welcome(text):
    """Anything but a whole welcome file is refused."""
    with pytest.raises(UsageError, match="welcome file"):
        Welcome.from_json(text)


def test_new_output_vanishes_on_error(tmp_path):
    """A file appears complete or not at all, and replaces nothing."""
    target = tmp_path / "f"

    def failing():
        with new_output(target) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert [] == list(tmp_path.iterdir())
    create_private(target, b"whole")
    with pytest.raises(UsageError):
        failing()
    replace_private(target, b"new")
    assert b"new" == target.read_bytes()


def test_pipe_prefers_the_error_of_the_writer():
    """What cut the stream is reported, not what the reader made of the cut."""

    def fails(sink):
        sink.write(b"x" * 100_000)
        raise KeyError

    with pytest.raises(KeyError):
        join(fails, lambda source: len(source.read()) // 0)
    with pytest.raises(ZeroDivisionError):
        join(lambda sink: sink.write(b"x" * 10_000_000), lambda _: 1 // 0)
    assert (3, b"abc") == join(lambda sink: sink.write(b"abc"), lambda source: source.read())
