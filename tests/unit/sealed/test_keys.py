# SPDX-License-Identifier: Apache-2.0
import hashlib

import pytest

from cloister.sealed.errors import KeyFormatError, WrapFormatError, WrongRecipientError
from cloister.sealed.keys import PUBLIC_KEY_SIZE, WRAP_SIZE, Identity, Recipient, unwrap, wrap

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
DEK, CONTEXT = b"d" * 32, hashlib.sha256(b"manifest").digest()


def test_the_key_pair_is_that_of_the_x_wing_draft() -> None:
    """The seed of the draft's first test vector expands to the draft's public key."""
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    public = Identity(seed).recipient.public_key
    assert public[:32].hex() == "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5"
    assert public[-32:].hex() == "859edb06eff389b27dce59844570216223593d4ba32d9abac8cd049040ef6534"


def test_the_strings_are_those_of_age() -> None:
    """The identity of age-keygen's manual page gives a recipient of the start and length shown there."""
    identity = Identity.parse("AGE-SECRET-KEY-PQ-1K30MYPZAHAXHR22YHH27EGDVLU0QNSUH3DSV7J7NR3X6D9LHXNWSDLTV4T")
    recipient = str(identity.recipient)
    assert recipient.startswith("age1pq167")
    assert len(recipient) == len("age1pq167") + 1950


def test_strings_make_the_round_trip() -> None:
    """Identity and recipient come back from their strings, whose case is fixed."""
    assert Identity.parse(str(ALICE)) == ALICE
    assert Recipient.parse(str(ALICE.recipient)) == ALICE.recipient
    assert (str(ALICE).isupper(), str(ALICE.recipient).islower()) == (True, True)


def test_generation_takes_its_randomness_from_the_caller() -> None:
    """The seed is exactly what the random source gives for 32 bytes."""
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return b"r" * count

    assert Identity.generate(source) == Identity(b"r" * 32)
    assert asked == [32]
    assert Identity.generate() != Identity.generate()


def test_the_key_id_is_the_start_of_the_public_keys_digest() -> None:
    """A key id is 32 hexadecimal digits of SHA-256 of the public key."""
    digest = hashlib.sha256(ALICE.recipient.public_key).hexdigest()
    assert digest[:32] == ALICE.recipient.key_id


def test_representations_hide_the_secret() -> None:
    """What a log or a debugger prints of an identity holds neither seed nor string."""
    shown = repr(ALICE) + repr([ALICE]) + f"{ALICE!r}"
    assert str(ALICE) not in shown
    assert ALICE.seed.hex() not in shown
    assert "aaaa" not in shown


def test_parse_errors_hide_the_secret() -> None:
    """A mistyped identity is not repeated in the message."""
    with pytest.raises(KeyFormatError) as caught:
        Identity.parse(str(ALICE)[:-1] + "Q")
    assert str(ALICE)[20:40] not in str(caught.value)


def test_a_wrap_opens_for_its_recipient_and_context() -> None:
    """Unwrapping gives back the data key, from a wrap of the specified length."""
    wrapped = wrap(DEK, ALICE.recipient, CONTEXT)
    assert WRAP_SIZE == len(wrapped)
    assert unwrap(wrapped, ALICE, CONTEXT) == DEK


def test_a_wrap_opens_for_nobody_and_nothing_else() -> None:
    """Another identity and another context are refused."""
    wrapped = wrap(DEK, ALICE.recipient, CONTEXT)
    for identity, context in ((BOB, CONTEXT), (ALICE, hashlib.sha256(b"other").digest())):
        with pytest.raises(WrongRecipientError):
            unwrap(wrapped, identity, context)


@pytest.mark.parametrize("size", [0, WRAP_SIZE - 1, WRAP_SIZE + 1])
def test_wraps_of_another_length_are_refused(size: int) -> None:
    """A wrap has one length."""
    with pytest.raises(WrapFormatError):
        unwrap(bytes(size), ALICE, CONTEXT)


def test_contexts_must_be_digests() -> None:
    """A context of another length than SHA-256 is a caller's mistake and is refused."""
    with pytest.raises(WrapFormatError):
        wrap(DEK, ALICE.recipient, b"manifest")


def test_keys_of_another_length_are_refused() -> None:
    """Seeds, public keys and data keys have one length each."""
    for make in (
        lambda: Identity(b"short"),
        lambda: Recipient(b"short"),
        lambda: wrap(b"short", ALICE.recipient, CONTEXT),
    ):
        with pytest.raises(KeyFormatError):
            make()


def test_a_recipient_of_small_order_gets_no_wrap() -> None:
    """An X25519 part that makes the shared secret known to everybody is refused."""
    weak = Recipient(ALICE.recipient.public_key[: PUBLIC_KEY_SIZE - 32] + bytes(32))
    with pytest.raises(KeyFormatError):
        wrap(DEK, weak, CONTEXT)
