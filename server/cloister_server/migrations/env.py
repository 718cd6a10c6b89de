# SPDX-License-Identifier: Apache-2.0
"""Run by Alembic, on the connection that `schema.py` hands over."""

from alembic import context

from cloister_server.migrations.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    compare_type=True,
    transaction_per_migration=False,
)
context.run_migrations()
