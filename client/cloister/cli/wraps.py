# SPDX-License-Identifier: Apache-2.0
"""What was wrapped to whom, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloister.cli.output import print_table

if TYPE_CHECKING:
    from cloister.grants import Granted


def tell(done: Sequence[Granted]) -> None:
    """One line for each object.  Raises RefusedError where one was not wrapped."""
    from cloister.errors import RefusedError

    print_table(("kind", "id", "name", "new wraps"), [(d.kind, d.id, d.name, str(d.added)) for d in done])
    if refused := [d for d in done if d.refusal]:
        raise RefusedError(f"{len(refused)} of {len(done)} were not wrapped; the first: {refused[0].refusal}")
