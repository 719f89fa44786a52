"""The tables of the endpoint, as models: what is served, who decides it, who saw what, and what came back.

Columns are only added within a minor version. Times are in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

VARIANT_STATES = ("proposed", "loading", "ready", "failed", "retired")
EXPERIMENT_STATES = ("draft", "running", "paused", "invalid", "decided")
LIVE_STATES = ("running", "paused")
LIVE = "state IN ('running', 'paused')"
UNITS = ("user", "conversation", "request")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which keeps no zone, gets it and gives it back without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Returns the moment as the database keeps it; raises ValueError for one without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC) if dialect.name != "sqlite" else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Returns the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """The base of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        str: String(255),
    }


class Endpoint(Table):
    """A name that clients ask, and the variant that answers unless an experiment says otherwise."""

    __tablename__ = "endpoints"

    name: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str]
    champion: Mapped[str | None]
    revision: Mapped[int]
    limits: Mapped[dict[str, Any]]


class Variant(Table):
    """One model behind an endpoint; it is never changed in place."""

    __tablename__ = "variants"
    __table_args__ = (UniqueConstraint("endpoint", "name", name="uq_variants_endpoint_name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(ForeignKey("endpoints.name", name="fk_variants_endpoint"))
    name: Mapped[str]
    model_digest: Mapped[str]
    model_ref: Mapped[str]
    engine: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)


class Revision(Table):
    """An immutable snapshot of the routing of an endpoint, in force from `active_at`."""

    __tablename__ = "revisions"

    endpoint: Mapped[str] = mapped_column(ForeignKey("endpoints.name", name="fk_revisions_endpoint"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    routing: Mapped[dict[str, Any]]
    active_at: Mapped[datetime]
    author: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)


class Experiment(Table):
    """A held split between two variants, with the rule that decides it."""

    __tablename__ = "experiments"
    __table_args__ = (
        Index("ix_experiments_endpoint", "endpoint"),
        # At most one running or paused experiment per endpoint, whoever writes.
        Index("uq_experiments_live", "endpoint", unique=True, sqlite_where=text(LIVE), postgresql_where=text(LIVE)),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(ForeignKey("endpoints.name", name="fk_experiments_endpoint"))
    salt: Mapped[str]
    unit: Mapped[str] = mapped_column(String(16))
    control: Mapped[str] = mapped_column(ForeignKey("variants.id", name="fk_experiments_control"))
    treatment: Mapped[str] = mapped_column(ForeignKey("variants.id", name="fk_experiments_treatment"))
    weights: Mapped[list[Any]]
    coverage: Mapped[float]
    rule: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str | None] = mapped_column(Text)


class Unit(Table):
    """A unit that an experiment enrolled: its arm for good, and when its window closes."""

    __tablename__ = "units"
    __table_args__ = (Index("ix_units_experiment_closes_at", "experiment", "closes_at"),)

    experiment: Mapped[str] = mapped_column(primary_key=True)
    unit_hash: Mapped[str] = mapped_column(primary_key=True)
    arm: Mapped[str]
    first_request: Mapped[str]
    first_at: Mapped[datetime]
    closes_at: Mapped[datetime]
    crossed: Mapped[bool]


class Exposure(Table):
    """A request was given a variant; written before the answer leaves."""

    __tablename__ = "exposures"
    __table_args__ = (
        Index("ix_exposures_experiment_unit_hash", "experiment", "unit_hash"),
        Index("ix_exposures_at", "at"),
    )

    request_id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    endpoint: Mapped[str]
    revision: Mapped[int]
    experiment: Mapped[str | None]
    unit_hash: Mapped[str | None]
    assigned: Mapped[str]
    reason: Mapped[str] = mapped_column(String(16))
    key_id: Mapped[str]


class Completion(Table):
    """How a request ended; appended after the answer."""

    __tablename__ = "completions"

    request_id: Mapped[str] = mapped_column(primary_key=True)
    served: Mapped[str | None]
    status: Mapped[int]
    ttft_ms: Mapped[float | None]
    total_ms: Mapped[float]
    tokens_in: Mapped[int | None]
    tokens_out: Mapped[int | None]
    finish: Mapped[str] = mapped_column(String(32))
    prediction: Mapped[list[Any] | None]
    score: Mapped[float | None]


class Outcome(Table):
    """What came back later for a unit."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("key_id", "idem_key", name="uq_outcomes_key_id_idem_key"),
        Index("ix_outcomes_experiment_unit_hash", "experiment", "unit_hash"),
        Index("ix_outcomes_request", "request_id", "metric", "late", "id"),  # finds what replaces an outcome
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    experiment: Mapped[str | None]  # null: the request was not enrolled
    unit_hash: Mapped[str | None]
    request_id: Mapped[str | None]
    metric: Mapped[str]
    value: Mapped[float] = mapped_column(Float)
    observed_at: Mapped[datetime]
    received_at: Mapped[datetime]
    late: Mapped[bool]
    key_id: Mapped[str]
    idem_key: Mapped[str | None]
    supersedes: Mapped[str | None]


class Look(Table):
    """What the referee saw on one tick, and what it decided."""

    __tablename__ = "looks"

    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.id", name="fk_looks_experiment"), primary_key=True)
    tick: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    counts: Mapped[dict[str, Any]]
    effect: Mapped[float | None]
    lower: Mapped[float | None]
    upper: Mapped[float | None]
    p_min: Mapped[float | None]
    srm_p_min: Mapped[float | None]
    guardrails: Mapped[dict[str, Any]]
    decision: Mapped[str]


class Audit(Table):
    """Who changed what, from which value to which; never altered."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_subject", "subject"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    old: Mapped[dict[str, Any] | None]
    new: Mapped[dict[str, Any] | None]


class Key(Table):
    """A client's key: only its SHA-256 is kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    roles: Mapped[list[Any]]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Lease(Table):
    """Who may act as the only one of its kind until `expires_at`; `fence` rises with each holder."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    fence: Mapped[int]
    expires_at: Mapped[datetime]


class Secret(Table):
    """A secret of this database, such as the key that units are hashed with."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
