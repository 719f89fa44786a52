"""Runs the migrations on the connection that `open_database` hands over; there is no offline mode."""

from __future__ import annotations

from alembic import context

from espalier_serving.tables import Table

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=False)
context.run_migrations()
