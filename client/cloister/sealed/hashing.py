# SPDX-License-Identifier: Apache-2.0
"""SHA-256 beside other work.

Hashing costs more than AES-GCM, and it runs without the interpreter lock, which the AEAD calls hold.
So the calling thread hashes one block while a second thread makes the next.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

_WORTH_A_THREAD = 1 << 18


def sha256_of_blocks(blocks: Iterator[memoryview]) -> str:
    """Exhaust `blocks` and return the SHA-256 of them all: 64 hexadecimal digits.

    `blocks` runs on a second thread, one step ahead: a block must stay unchanged until the next but one is
    asked for, so a generator needs two buffers in turn. What it raises is raised here.
    """
    sha256 = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=1) as pool:
        block = next(blocks, None)
        while block is not None:
            if len(block) < _WORTH_A_THREAD:
                sha256.update(block)
                block = next(blocks, None)
                continue
            # Submit first: the other thread gets the lock at the moment at which the hash lets it go.
            following = pool.submit(next, blocks, None)
            sha256.update(block)
            block = following.result()
    return sha256.hexdigest()
