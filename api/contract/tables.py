"""The tables. Each has one writer: what people want is written by the API and by SQL, what is by the controller.

All times are Unix seconds (UTC). Triggers that count generations, bump the feed and refuse what would break
an invariant live in the migrations, the same for SQLite and PostgreSQL.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Common to all tables; constraints have names, so that migrations can change them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON, list[Any]: JSON, float: Double}


BigId = BigInteger().with_variant(Integer, "sqlite")


class Whole(TypeDecorator[int]):
    """A whole number that people write: PostgreSQL's integers would round 1.5 instead of refusing it."""

    impl = Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Store it as `numeric` on PostgreSQL."""
        return dialect.type_descriptor(Numeric() if dialect.name == "postgresql" else Integer())

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Give an int, not a Decimal."""
        return None if value is None else int(value)


def words(length: int) -> String:
    """Return the type of a text that people write. On PostgreSQL a trigger tells of its length, in better words."""
    return String(length).with_variant(Text, "postgresql")


class InstallationRow(Base):
    """One row, made by the first migration: the id that is part of every token."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("singleton = 1", name="one_row"),)

    singleton: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[float]


class Feed(Base):
    """One row: the last number given out. Taken in the writing transaction, so numbers are seen in their order."""

    __tablename__ = "feed"
    __table_args__ = (CheckConstraint("singleton = 1", name="one_row"),)

    singleton: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)


class Service(Base):
    """What a user declared. Written by the API and by people's own SQL, never by the controller."""

    __tablename__ = "services"
    __table_args__ = (
        CheckConstraint("length(id) BETWEEN 1 AND 32", name="id_length"),
        CheckConstraint("length(name) BETWEEN 1 AND 160", name="name_length"),
        CheckConstraint("length(recipe_name) BETWEEN 1 AND 160", name="recipe_name_length"),
        # SQLite would take 1.5 for a whole number.
        CheckConstraint(
            "replicas IS NULL OR (replicas BETWEEN 0 AND 1000 AND replicas = CAST(replicas AS INTEGER))",
            name="replicas_range",
        ),
        CheckConstraint("desired_state IN ('running', 'stopped')", name="desired_state_word"),
        Index(
            "uq_services_living_name",
            "name",
            unique=True,
            sqlite_where=text("deletion_requested_at IS NULL"),
            postgresql_where=text("deletion_requested_at IS NULL"),
        ),
        Index("ix_services_change_seq", "change_seq"),
        Index("ix_services_name", "name"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str | None] = mapped_column(words(160))
    """Filled in by a trigger where it is left out: `<recipe>-<id>`."""
    recipe_name: Mapped[str] = mapped_column(words(160))
    """As it was sent."""
    config: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    replicas: Mapped[int | None] = mapped_column(Whole)
    """NULL: what the config or the recipe says."""
    desired_state: Mapped[str] = mapped_column(words(16), server_default=text("'running'"))
    generation: Mapped[int] = mapped_column(server_default=text("1"))
    version: Mapped[int] = mapped_column(server_default=text("1"))
    change_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[float] = mapped_column(server_default=text("0"))
    updated_at: Mapped[float] = mapped_column(server_default=text("0"))
    deletion_requested_at: Mapped[float | None]
    purge: Mapped[int] = mapped_column(server_default=text("0"))
    """1: a DELETE really removes the row (retention); 0: it becomes a tombstone."""
    owner: Mapped[str | None] = mapped_column(words(160))
    """NULL: the operator."""
    project: Mapped[str | None] = mapped_column(words(160))
    access: Mapped[str | None] = mapped_column(words(16))
    """Who may see and ask it beside its owner: `owner` (nobody), `project`, `everyone`; NULL: what the site says."""
    rollout_paused: Mapped[int] = mapped_column(server_default=text("0"))
    """1: a change of what is wanted touches nothing that runs, until it is 0 again."""


class ServiceGeneration(Base):
    """What a generation of a service asked to be launched, where that changed. Written by triggers alone."""

    __tablename__ = "service_generations"

    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    recipe_name: Mapped[str] = mapped_column(Text)
    config: Mapped[dict[str, Any]]
    at: Mapped[float]


class UserEvent(Base):
    """What users did through the API."""

    __tablename__ = "user_events"
    __table_args__ = (Index("ix_user_events_service_id", "service_id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class ServiceChange(Base):
    """When anything of a service changed last: its row, its status or its endpoints. Written by triggers alone."""

    __tablename__ = "service_changes"
    __table_args__ = (Index("ix_service_changes_seq", "seq"),)

    service_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Empty: a marker. Up to its number services may have been removed for good."""
    seq: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """What the API answered to a POST under a key of the client's own."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index("ix_idempotency_keys_at", "at"),
        Index("ix_idempotency_keys_service_id", "service_id"),
    )

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of what was asked for."""
    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    answer: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class ApiKeyRow(Base):
    """A key of somebody who uses the API. Triggers number its changes in the feed."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("length(digest) = 64", name="digest_length"),
        Index("uq_api_keys_digest", "digest", unique=True),
        Index("ix_api_keys_change_seq", "change_seq"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    owner: Mapped[str] = mapped_column(String(160))
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret, in hexadecimal digits."""
    start: Mapped[str] = mapped_column(String(16))
    """Of the secret, by which people know it again."""
    scopes: Mapped[list[Any]]
    models: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """The names that it may ask for; NULL: all."""
    project: Mapped[str | None] = mapped_column(String(160))
    """In which what it makes is; NULL: in none."""
    recipes: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Paths of the recipes that it may launch; NULL: all."""
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    """NULL, as with the other limits: as much as one likes."""
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    requests_at_once: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    """NULL: never."""
    revoked_at: Mapped[float | None]
    """It counts as revoked from then on: after a rotation that may be later."""
    change_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class ServiceStatus(Base):
    """What the controller says about a service; written only when it changed."""

    __tablename__ = "service_status"

    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"), primary_key=True)
    observed_generation: Mapped[int]
    wanted_replicas: Mapped[int]
    """Resolved: the service's own number, its config's or its recipe's."""
    target: Mapped[int | None]
    """How many there are to be, as the controller decided; NULL: it has not since this column is there."""
    ready_replicas: Mapped[int]
    conditions: Mapped[list[Any]]
    spec: Mapped[str | None] = mapped_column(Text)
    """The launch spec of `observed_generation`, as JSON."""
    digest: Mapped[str] = mapped_column(String(64))
    updated_at: Mapped[float]


class AttemptRow(Base):
    """One try at running a replica: one Slurm job under one token."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("replica >= 0", name="replica_range"),
        CheckConstraint("incarnation >= 1", name="incarnation_range"),
        CheckConstraint("gone_at IS NULL OR closed_at IS NOT NULL", name="gone_is_closed"),
        CheckConstraint("closed_at IS NULL OR outcome IS NOT NULL", name="closed_has_outcome"),
        CheckConstraint("port IS NULL OR port BETWEEN 1 AND 65535", name="port_range"),
        Index(
            "uq_attempts_open",
            "service_id",
            "replica",
            "lane",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index("uq_attempts_incarnation", "service_id", "replica", "incarnation", unique=True),
        Index(
            "ix_attempts_not_gone",
            "service_id",
            sqlite_where=text("gone_at IS NULL"),
            postgresql_where=text("gone_at IS NULL"),
        ),
    )

    token: Mapped[str] = mapped_column(String(96), primary_key=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    replica: Mapped[int]
    incarnation: Mapped[int]
    lane: Mapped[str] = mapped_column(String(16))
    """Where it stands beside another attempt of its replica: `main` or `b`."""
    beside: Mapped[str | None] = mapped_column(String(64))
    """Why it may live beside what is left of the other lane; NULL: it may not."""
    door: Mapped[str | None] = mapped_column(String(16))
    """Under which of the installation's keys its door is made; NULL: it has none, its engine listens by itself."""
    generation: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    gpus: Mapped[int] = mapped_column(server_default="0")
    """That its job asks for."""
    failures: Mapped[int]
    faults: Mapped[int] = mapped_column(server_default="0")
    """Those of the failures that speak against what was launched."""
    intent_at: Mapped[float]
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    submitted_at: Mapped[float | None]
    absent_since: Mapped[float | None]
    claimed_at: Mapped[float | None]
    started_at: Mapped[float | None]
    node: Mapped[str | None] = mapped_column(String(255))
    host: Mapped[str | None] = mapped_column(String(255))
    launched_at: Mapped[float | None]
    port: Mapped[int | None]
    serving_at: Mapped[float | None]
    ready_at: Mapped[float | None]
    unready_since: Mapped[float | None]
    draining_since: Mapped[float | None]
    """Since when a younger one of its replica has its traffic."""
    draining_feed: Mapped[int | None] = mapped_column(BigInteger)
    """The feed's number at that: who has applied it, routes nothing to it any more."""
    shut_at: Mapped[float | None]
    """Since when every gateway that lives has applied it, and its door was told."""
    ends_at: Mapped[float | None]
    closed_at: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    exit_code: Mapped[int | None]
    gone_at: Mapped[float | None]


class EndpointRow(Base):
    """Where a replica answers: with the key file all that a gateway needs."""

    __tablename__ = "endpoints"
    __table_args__ = (
        CheckConstraint("port BETWEEN 1 AND 65535", name="port_range"),
        CheckConstraint("state IN ('ready', 'unready')", name="state_word"),
        Index("ix_endpoints_change_seq", "change_seq"),
        Index("ix_endpoints_service_id", "service_id"),
    )

    token: Mapped[str] = mapped_column(String(96), primary_key=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    replica: Mapped[int]
    models: Mapped[list[Any]]
    host: Mapped[str] = mapped_column(String(255))
    port: Mapped[int]
    door: Mapped[str | None] = mapped_column(String(16))
    """Its attempt's."""
    state: Mapped[str] = mapped_column(String(16))
    change_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class KeyUseRow(Base):
    """When a key was last used, as gateways note it: some time later. No row: not since there is this table."""

    __tablename__ = "key_use"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True)
    last_used_at: Mapped[float]


class GatewayRow(Base):
    """What a gateway has heard, in its own hand. Who lives is judged by whether its row changes, not by its clock."""

    __tablename__ = "gateways"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Drawn when it began."""
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    began_at: Mapped[float]
    applied: Mapped[int] = mapped_column(BigInteger)
    """Up to this number of the feed its routing table tells all; 0: it has none yet."""
    signs: Mapped[int] = mapped_column(BigInteger)
    """How often it has written this row."""
    heard_at: Mapped[float]
    """When it wrote it last, by its own clock, for people."""


class EventRow(Base):
    """One line of a service's history, the controller's; the same line again only counts."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_service_id", "service_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(16))
    """Normal or Warning."""
    reason: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    count: Mapped[int]
    first_at: Mapped[float]
    last_at: Mapped[float]


class LeaseRow(Base):
    """The right to act. The epoch only grows; `renewals` moves while the holder lives."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str | None] = mapped_column(String(255))
    """NULL: given up by its holder."""
    host: Mapped[str | None] = mapped_column(String(255))
    renewals: Mapped[int] = mapped_column(BigInteger)
    renewed_at: Mapped[float]
