# SPDX-License-Identifier: Apache-2.0
"""The beginning of a site: its root, its certificate authority, and an empty roster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cloister.admin.certificates import create_authority
from cloister.admin.custody import CA_CERTIFICATE, CA_KEY, ROOT_KEY, Custody
from cloister.admin.draft import new_draft
from cloister.evidence.signatures import SigningKey
from cloister.files import create_private, private_directory
from cloister.tls import tls_key_pem


def wall_clock() -> int:
    """Unix seconds."""
    return int(time.time())


def create_root(
    directory: Path,
    site: str,
    *,
    endpoint: str = "",
    clock: Callable[[], int] = wall_clock,
    random: Callable[[int], bytes] = os.urandom,
) -> Custody:
    """Make the custodian's directory of a new site.

    Raises UsageError for a bad name, HomeError where a root exists already: a second root would be another site.
    """
    draft = new_draft(site)
    private_directory(directory)
    create_private(directory / ROOT_KEY, (SigningKey.generate(random).export() + "\n").encode("ascii"))
    authority = create_authority(site, clock())
    create_private(directory / CA_KEY, tls_key_pem(authority.key))
    create_private(directory / CA_CERTIFICATE, authority.certificate_pem.encode("ascii"))
    custody = Custody(directory)
    custody.save_draft(draft)
    custody.save_site(site, endpoint)
    return custody
