"""The changes of the schema in their order, run by Alembic when a database is opened."""
