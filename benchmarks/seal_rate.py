# SPDX-License-Identifier: Apache-2.0
"""How fast a payload is sealed and opened, as ratios to what the machine can do in the same run.

    python benchmarks/seal_rate.py [MiB]

Prints GB/s (best of seven) and two ratios with their targets:
the chunked cipher against bare AES-256-GCM of the same library on 16 KiB blocks (at least 0.7; one thread),
and a whole seal, digest included, against SHA-256 alone (at least 0.75).
Hashing runs on a second thread: on a machine whose cores are all busy, the second ratio falls to that of the
sum of both times. Memory to memory: disks are not measured. Exit status 1 if a target is missed.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from io import BytesIO

from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.sealed.payload import generate_dek, open_stream, seal_stream

ROUNDS = 7
BLOCK = 16384
STEP = 128 * BLOCK


class Null(BytesIO):
    """A sink that keeps nothing."""

    def write(self, data: object, /) -> int:
        return memoryview(data).nbytes  # type: ignore[arg-type]


def best(size: int, actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """GB/s of each action; the rounds alternate, so that a slow moment of the machine hits all of them."""
    seconds = dict.fromkeys(actions, float("inf"))
    for _ in range(ROUNDS):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: size / taken / 1e9 for name, taken in seconds.items()}


def sha256(data: memoryview) -> None:
    """SHA-256 alone."""
    digest = hashlib.sha256()
    for at in range(0, len(data), STEP):
        digest.update(data[at : at + STEP])


def bare_aes(data: memoryview) -> None:
    """Every block under the same nonce: for timing only."""
    aead, out, nonce = AESGCM(generate_dek()), bytearray(BLOCK + 16), bytes(12)
    for at in range(0, len(data), BLOCK):
        aead.encrypt_into(nonce, data[at : at + BLOCK], None, out)


def cipher(data: memoryview) -> None:
    """The chunked cipher alone, as sealing calls it."""
    encryptor = Cobblestone256Encryptor(generate_dek(), b"")
    out = bytearray(56 + (STEP // BLOCK + 1) * (BLOCK + 16))
    for at in range(0, len(data), STEP):
        encryptor.update_into(data[at : at + STEP], out)
    encryptor.finalize()


def main() -> int:
    """Print the rates; returns the exit status."""
    size = int(sys.argv[1] if len(sys.argv) > 1 else "256") << 20
    plain = os.urandom(1 << 20) * (size >> 20)
    dek, sealed = generate_dek(), BytesIO()
    seal_stream(BytesIO(plain), sealed, dek, b"")
    view = memoryview(plain)
    rates = best(
        size,
        {
            "SHA-256": lambda: sha256(view),
            "AES-256-GCM, 16 KiB": lambda: bare_aes(view),
            "cipher": lambda: cipher(view),
            "seal": lambda: seal_stream(BytesIO(plain), Null(), generate_dek(), b""),
            "open": lambda: open_stream(BytesIO(sealed.getvalue()), Null(), dek, b""),
        },
    )
    for name, rate in rates.items():
        print(f"{name:22} {rate:6.2f} GB/s")
    ratios = {
        "cipher / AES-256-GCM": (rates["cipher"] / rates["AES-256-GCM, 16 KiB"], 0.7),
        "seal / SHA-256": (rates["seal"] / rates["SHA-256"], 0.75),
    }
    for name, (ratio, target) in ratios.items():
        print(f"{name:22} {ratio:6.2f}  (target {target})")
    return int(any(ratio < target for ratio, target in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
