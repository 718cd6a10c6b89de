# SPDX-License-Identifier: Apache-2.0
"""Bech32 with the checksum of BIP-173 and without its length limit, as age uses it for keys.

Checksum over GF(32): generator and final constant 1 from BIP-173.
Strings are all lower case or all upper case, and here always the case of their prefix.
"""

from collections.abc import Iterable

from cloister.sealed.errors import KeyFormatError

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {char: value for value, char in enumerate(_CHARSET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6


def encode(prefix: str, data: bytes) -> str:
    """`prefix`, "1", the data in groups of five bits, six characters of checksum; in the prefix's case."""
    groups = _regroup(data, 8, 5)
    if len(data) * 8 % 5:
        groups.append(_last_bits(data))
    remainder = _polymod([*_expand(prefix.lower()), *groups, *([0] * _CHECKSUM_LENGTH)]) ^ 1
    check = [remainder >> 5 * (5 - place) & 31 for place in range(_CHECKSUM_LENGTH)]
    text = f"{prefix.lower()}1{''.join(_CHARSET[group] for group in [*groups, *check])}"
    return text.upper() if prefix.isupper() else text


def decode(text: str, prefix: str, size: int, what: str) -> bytes:
    """The `size` bytes of a string with this prefix.

    Raises KeyFormatError; the message names `what` and never repeats the string, which may be a secret.
    """
    head, body = text[: len(prefix) + 1], text[len(prefix) + 1 :]
    if head != prefix + "1":
        raise KeyFormatError(f"{what}: it does not begin with {prefix}1")
    if body != (body.upper() if prefix.isupper() else body.lower()):
        raise KeyFormatError(f"{what}: upper and lower case are mixed; copy the string again")
    try:
        groups = [_VALUES[char] for char in body.lower()]
    except KeyError:
        raise KeyFormatError(f"{what}: it holds a character that no key has; copy the string again") from None
    if _polymod([*_expand(prefix.lower()), *groups]) != 1:
        raise KeyFormatError(f"{what}: its checksum is wrong; it was mistyped or cut, copy the string again")
    data = bytes(_regroup(groups[:-_CHECKSUM_LENGTH], 5, 8))
    # Encoding again catches padding bits that are not zero: one key must have one string.
    if len(data) != size or encode(prefix, data) != text:
        raise KeyFormatError(f"{what}: it does not hold a key of {size} bytes")
    return data


def _regroup(values: Iterable[int], width: int, new_width: int) -> list[int]:
    """Values of `width` bits as values of `new_width` bits; a last incomplete group is left out."""
    result: list[int] = []
    pending = bits = 0
    for value in values:
        pending = pending << width | value
        bits += width
        while bits >= new_width:
            bits -= new_width
            result.append(pending >> bits)
            pending &= (1 << bits) - 1
    return result


def _last_bits(data: bytes) -> int:
    """The incomplete last group of five bits, filled with zero bits on the right."""
    rest = len(data) * 8 % 5
    return (data[-1] & (1 << rest) - 1) << 5 - rest


def _expand(prefix: str) -> list[int]:
    codes = [ord(char) for char in prefix]
    return [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)]


def _polymod(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATOR):
            if top >> place & 1:
                state ^= generator
    return state
