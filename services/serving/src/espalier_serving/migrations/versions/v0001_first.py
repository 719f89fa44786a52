"""The first schema: all tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates all tables."""
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("old", sa.JSON(), nullable=True),
        sa.Column("new", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_subject", "audit", ["subject"], unique=False)
    op.create_table(
        "completions",
        sa.Column("request_id", sa.String(length=255), nullable=False),
        sa.Column("served", sa.String(length=255), nullable=True),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("ttft_ms", sa.Double(), nullable=True),
        sa.Column("total_ms", sa.Double(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=True),
        sa.Column("tokens_out", sa.Integer(), nullable=True),
        sa.Column("finish", sa.String(length=32), nullable=False),
        sa.Column("prediction", sa.JSON(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("task", sa.String(length=255), nullable=False),
        sa.Column("champion", sa.String(length=255), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "exposures",
        sa.Column("request_id", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("experiment", sa.String(length=255), nullable=True),
        sa.Column("unit_hash", sa.String(length=255), nullable=True),
        sa.Column("assigned", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("key_id", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_exposures_at", "exposures", ["at"], unique=False)
    op.create_index("ix_exposures_experiment_unit_hash", "exposures", ["experiment", "unit_hash"], unique=False)
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "outcomes",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("experiment", sa.String(length=255), nullable=True),
        sa.Column("unit_hash", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("metric", sa.String(length=255), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("key_id", sa.String(length=255), nullable=False),
        sa.Column("idem_key", sa.String(length=255), nullable=True),
        sa.Column("supersedes", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key_id", "idem_key", name="uq_outcomes_key_id_idem_key"),
    )
    op.create_index("ix_outcomes_experiment_unit_hash", "outcomes", ["experiment", "unit_hash"], unique=False)
    op.create_index("ix_outcomes_request", "outcomes", ["request_id", "metric", "late", "id"], unique=False)
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "units",
        sa.Column("experiment", sa.String(length=255), nullable=False),
        sa.Column("unit_hash", sa.String(length=255), nullable=False),
        sa.Column("arm", sa.String(length=255), nullable=False),
        sa.Column("first_request", sa.String(length=255), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closes_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("crossed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "unit_hash"),
    )
    op.create_index("ix_units_experiment_closes_at", "units", ["experiment", "closes_at"], unique=False)
    op.create_table(
        "revisions",
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("routing", sa.JSON(), nullable=False),
        sa.Column("active_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.name"], name="fk_revisions_endpoint"),
        sa.PrimaryKeyConstraint("endpoint", "revision"),
    )
    op.create_table(
        "variants",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("model_digest", sa.String(length=255), nullable=False),
        sa.Column("model_ref", sa.String(length=255), nullable=False),
        sa.Column("engine", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.name"], name="fk_variants_endpoint"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("endpoint", "name", name="uq_variants_endpoint_name"),
    )
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("salt", sa.String(length=255), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("control", sa.String(length=255), nullable=False),
        sa.Column("treatment", sa.String(length=255), nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("coverage", sa.Double(), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["control"], ["variants.id"], name="fk_experiments_control"),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.name"], name="fk_experiments_endpoint"),
        sa.ForeignKeyConstraint(["treatment"], ["variants.id"], name="fk_experiments_treatment"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_experiments_endpoint", "experiments", ["endpoint"], unique=False)
    op.create_index(
        "uq_experiments_live",
        "experiments",
        ["endpoint"],
        unique=True,
        sqlite_where=sa.text("state IN ('running', 'paused')"),
        postgresql_where=sa.text("state IN ('running', 'paused')"),
    )
    op.create_table(
        "looks",
        sa.Column("experiment", sa.String(length=255), nullable=False),
        sa.Column("tick", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("effect", sa.Double(), nullable=True),
        sa.Column("lower", sa.Double(), nullable=True),
        sa.Column("upper", sa.Double(), nullable=True),
        sa.Column("p_min", sa.Double(), nullable=True),
        sa.Column("srm_p_min", sa.Double(), nullable=True),
        sa.Column("guardrails", sa.JSON(), nullable=False),
        sa.Column("decision", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"], name="fk_looks_experiment"),
        sa.PrimaryKeyConstraint("experiment", "tick"),
    )
