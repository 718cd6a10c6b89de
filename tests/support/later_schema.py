# SPDX-License-Identifier: Apache-2.0
"""The migrations of a program that is one version ahead: this one's, and one more."""

from __future__ import annotations

import shutil
from pathlib import Path

from cloister_server.migrations import schema

LATER = "0099"
_SCRIPT = """\
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None
compatible_from = "{compatible_from}"


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer(), nullable=False), sa.PrimaryKeyConstraint("id"))
    op.add_column("job", sa.Column("later", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.drop_column("later")
    op.drop_table("later")
"""


def additive_scripts(directory: Path) -> Path:
    """Migrations whose newest one adds a table and a column, and takes programs of the version before."""
    return _scripts(directory, schema.newest())


def breaking_scripts(directory: Path) -> Path:
    """The same, but programs of the version before may not go on."""
    return _scripts(directory, LATER)


def _scripts(directory: Path, compatible_from: str) -> Path:
    place = directory / f"scripts-{compatible_from}"
    shutil.copytree(schema.HERE, place, ignore=shutil.ignore_patterns("__pycache__"))
    script = _SCRIPT.format(revision=LATER, before=schema.newest(), compatible_from=compatible_from)
    (place / "versions" / f"{LATER}_later.py").write_text(script)
    return place
