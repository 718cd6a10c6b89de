# SPDX-License-Identifier: Apache-2.0
import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.evidence.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from cloister.evidence.errors import FormatError, SignatureError
from cloister.evidence.merkle import EMPTY_ROOT, leaf_hash
from cloister.evidence.note import (
    MAX_SIGNATURES,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    format_note,
    open_note,
    sign,
)

# The example of Go's golang.org/x/mod/sumdb/note package.
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
GO_NOTE = f"{GO_TEXT}\n\u2014 PeterNeumann {GO_SIGNATURE}\n".encode()

LOG = NoteSigner("log.example/one", Ed25519PrivateKey.from_private_bytes(b"1" * 32))
WITNESS = NoteSigner("witness.example", Ed25519PrivateKey.from_private_bytes(b"2" * 32))
TEXT = "hello\nworld\n"
ROOT = leaf_hash(b"entry")


def test_the_published_example_is_made_and_opened() -> None:
    """Keys, signature and bytes of the reference implementation's example come out exactly."""
    signer = NoteSigner.parse(GO_SKEY)
    assert GO_VKEY == signer.vkey
    assert GO_SKEY == signer.skey
    assert GO_NOTE == sign(GO_TEXT, [signer])
    assert open_note(GO_NOTE, [NoteVerifier.parse(GO_VKEY)]).text == GO_TEXT


def test_unknown_signatures_are_ignored() -> None:
    """A note signed by a known and an unknown key opens, and only the known signature is reported."""
    note = open_note(sign(TEXT, [WITNESS, LOG]), [LOG.verifier])
    assert (TEXT, ["log.example/one"]) == (note.text, [s.name for s in note.signatures])


def test_a_note_without_a_known_signature_is_refused() -> None:
    """Unknown keys alone vouch for nothing."""
    for verifiers in ([LOG.verifier], []):
        with pytest.raises(SignatureError):
            open_note(sign(TEXT, [WITNESS]), verifiers)


def test_a_known_key_with_a_bad_signature_is_refused() -> None:
    """A known key's bad signature condemns the note even beside a good one."""
    good = WITNESS.sign(TEXT)
    bad = NoteSignature(LOG.name, LOG.verifier.key_id, bytes(64))
    with pytest.raises(SignatureError):
        open_note(format_note(TEXT, [good, bad]), [LOG.verifier, WITNESS.verifier])


def test_a_key_of_the_same_name_is_another_key() -> None:
    """The key id tells keys of one name apart."""
    other = NoteSigner(LOG.name, Ed25519PrivateKey.from_private_bytes(b"3" * 32))
    with pytest.raises(SignatureError):
        open_note(sign(TEXT, [other]), [LOG.verifier])


def test_every_flipped_byte_is_refused() -> None:
    """No byte of a signed note can be changed."""
    note = sign(TEXT, [LOG])
    for at in range(len(note)):
        with pytest.raises((FormatError, SignatureError)):
            open_note(note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :], [LOG.verifier])


def test_a_text_may_hold_blank_lines() -> None:
    """The last blank line separates text and signatures."""
    text = "one\n\ntwo\n"
    assert open_note(sign(text, [LOG]), [LOG.verifier]).text == text


@pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "nul\x00\n", "return\r\n"])
def test_unfit_texts_are_refused(text: str) -> None:
    """A text must end in a newline and hold no other control character."""
    with pytest.raises(FormatError):
        sign(text, [LOG])


LINE = sign(TEXT, [LOG]).split(b"\n\n")[1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TEXT.encode(),
        TEXT.encode() + b"\n",
        TEXT.encode() + b"\n" + LINE[:-1],
        TEXT.encode() + b"\n" + LINE + b"\n",
        TEXT.encode() + b"\n" + LINE.replace(b"\xe2\x80\x94", b"--"),
        TEXT.encode() + b"\n" + LINE.replace(b" ", b"  "),
        TEXT.encode() + b"\n" + LINE.replace(b"log.example", b"log+example"),
        TEXT.encode() + b"\n" + LINE.replace(b"=\n", b"\n"),
        TEXT.encode() + b"\n" + "\u2014 x AAAA\n".encode(),
        TEXT.encode() + b"\n" + LINE * (MAX_SIGNATURES + 1),
        b"\xff" + TEXT.encode() + b"\n" + LINE,
        b"x" * (1 << 20) + TEXT.encode() + b"\n" + LINE,
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    """Bytes that are no note are refused for their form."""
    with pytest.raises(FormatError):
        open_note(data, [LOG.verifier])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        GO_VKEY.replace("PeterNeumann", "Peter Neumann"),
        GO_VKEY.replace("PeterNeumann", ""),
        GO_VKEY[:-4],
        GO_VKEY + "=",
        "PeterNeumann+c74f20a3+" + base64.b64encode(b"\x04" + bytes(32)).decode(),
    ],
)
def test_malformed_verifier_keys_are_refused(vkey: str) -> None:
    """A verifier key must have its form, an Ed25519 key, and the id that belongs to it."""
    with pytest.raises(FormatError):
        NoteVerifier.parse(vkey)


def test_signer_keys_stay_out_of_messages() -> None:
    """Neither a representation nor a parse error shows the private key."""
    secret = GO_SKEY.rpartition("+")[2]
    assert secret not in repr(NoteSigner.parse(GO_SKEY))
    with pytest.raises(FormatError) as caught:
        NoteSigner.parse(GO_SKEY.replace("c74f20a3", "c74f20a4"))
    assert secret not in str(caught.value)
    with pytest.raises(FormatError):
        NoteSigner.parse(GO_VKEY)


def test_a_checkpoint_makes_the_round_trip() -> None:
    """A signed checkpoint opens to itself for its own log."""
    checkpoint = Checkpoint("log.example/one", 1, ROOT)
    assert checkpoint == open_checkpoint(sign_checkpoint(checkpoint, LOG), LOG.verifier, LOG.name)


def test_a_checkpoint_has_the_specified_text() -> None:
    """The text is origin, size and base64 root, one line each."""
    expected = "o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    assert expected == Checkpoint("o", 0, EMPTY_ROOT).to_text()


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """A good signature under another origin says nothing about this log."""
    note = sign_checkpoint(Checkpoint("log.example/two", 1, ROOT), LOG)
    with pytest.raises(SignatureError):
        open_checkpoint(note, LOG.verifier, "log.example/one")


GOOD = Checkpoint("o", 12, ROOT).to_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "extension\n",
        GOOD.replace("o\n", "\n", 1),
        GOOD.replace("12", "012"),
        GOOD.replace("12", "-12"),
        GOOD.replace("12", "0"),
        GOOD.replace("12", "9223372036854775808"),
        GOOD.replace("12", "\u0661\u0662"),
        GOOD.replace("=", ""),
        GOOD.replace("=", "=="),
        "o\n1\nAAAA\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    """Only exactly the three specified lines are a checkpoint."""
    with pytest.raises(FormatError):
        Checkpoint.parse(text)
