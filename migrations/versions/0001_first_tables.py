"""The first tables, with the triggers that make SQL an API.

People may insert, update and delete rows of `services` themselves: triggers count generations, turn a DELETE into
a tombstone and bump the feed. Closed attempts stay closed, epochs only grow, whoever writes.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

from api.contract.identity import new_id

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_RANDOM_ID = {
    "sqlite": "(lower(hex(randomblob(4))))",
    "postgresql": "substr(md5(random()::text || clock_timestamp()::text), 1, 8)",
}
_IS_OBJECT = {
    "sqlite": "json_valid(config) AND json_type(config) = 'object'",
    "postgresql": "json_typeof(config) = 'object'",
}
_ID_CHARACTERS = {
    "sqlite": "id NOT GLOB '*[^0-9a-zA-Z_]*'",
    "postgresql": "id ~ '^[0-9a-zA-Z_]+$'",
}

_NOW = "(julianday('now') - 2440587.5) * 86400.0"
_WANTED = ("recipe_name", "config", "replicas", "desired_state", "deletion_requested_at")
_STEM = "substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1)"
_CHILDREN = ("attempts", "endpoints", "events", "service_status", "user_events")
_WRITABLE = ", ".join((*_WANTED, "name", "id", "purge"))

_STILL_THERE = "jobs of this service are not gone yet: delete it with purge = 0 first, and wait"

_SQLITE = (
    f"""
    CREATE TRIGGER services_insert AFTER INSERT ON services BEGIN
        UPDATE feed SET seq = seq + 1;
        UPDATE services SET
            name = coalesce(NEW.name, {_STEM} || '-' || NEW.id),
            generation = 1, version = 1, created_at = {_NOW}, updated_at = {_NOW},
            change_seq = (SELECT seq FROM feed)
        WHERE id = NEW.id;
    END
    """,
    """
    CREATE TRIGGER services_guard BEFORE UPDATE ON services BEGIN
        SELECT RAISE(ABORT, 'the id of a service never changes') WHERE NEW.id <> OLD.id;
        SELECT RAISE(ABORT, 'a service must have a name') WHERE NEW.name IS NULL;
        SELECT RAISE(ABORT, 'a deleted service can not be brought back: create a new one')
        WHERE OLD.deletion_requested_at IS NOT NULL AND NEW.deletion_requested_at IS NULL;
        SELECT RAISE(ABORT, 'generation, version and change_seq are counted by the database')
        WHERE CASE WHEN NEW.change_seq = OLD.change_seq
            THEN NEW.generation <> OLD.generation OR NEW.version <> OLD.version
            ELSE NEW.change_seq <> (SELECT seq FROM feed) END;
    END
    """,
    f"""
    CREATE TRIGGER services_update AFTER UPDATE OF {_WRITABLE} ON services WHEN OLD.change_seq > 0 BEGIN
        UPDATE feed SET seq = seq + 1;
        UPDATE services SET
            generation = OLD.generation + ({" OR ".join(f"NEW.{c} IS NOT OLD.{c}" for c in _WANTED)}),
            version = OLD.version + 1, updated_at = {_NOW},
            change_seq = (SELECT seq FROM feed)
        WHERE id = NEW.id;
    END
    """,
    f"""
    CREATE TRIGGER services_delete BEFORE DELETE ON services WHEN OLD.purge = 0 BEGIN
        UPDATE services SET deletion_requested_at = coalesce(deletion_requested_at, {_NOW}) WHERE id = OLD.id;
        SELECT RAISE(IGNORE);
    END
    """,
    f"""
    CREATE TRIGGER services_purge BEFORE DELETE ON services WHEN OLD.purge <> 0 BEGIN
        SELECT RAISE(ABORT, '{_STILL_THERE}')
        FROM attempts WHERE service_id = OLD.id AND gone_at IS NULL;
        {" ".join(f"DELETE FROM {child} WHERE service_id = OLD.id;" for child in _CHILDREN)}
    END
    """,
    """
    CREATE TRIGGER attempts_closed BEFORE UPDATE ON attempts WHEN OLD.closed_at IS NOT NULL BEGIN
        SELECT RAISE(ABORT, 'a closed attempt stays closed')
        WHERE NEW.closed_at IS NOT OLD.closed_at OR NEW.outcome IS NOT OLD.outcome;
    END
    """,
    """
    CREATE TRIGGER leases_epoch BEFORE UPDATE ON leases WHEN NEW.epoch < OLD.epoch BEGIN
        SELECT RAISE(ABORT, 'an epoch only grows');
    END
    """,
    """
    CREATE TRIGGER leases_kept BEFORE DELETE ON leases BEGIN
        SELECT RAISE(ABORT, 'an epoch only grows: a lease is never deleted');
    END
    """,
    *(
        f"""
        CREATE TRIGGER endpoints_{name} AFTER {event} ON endpoints BEGIN
            UPDATE feed SET seq = seq + 1;
            UPDATE {table} SET change_seq = (SELECT seq FROM feed) WHERE {where};
        END
        """
        for name, event, table, where in (
            ("insert", "INSERT", "endpoints", "token = NEW.token"),
            ("update", "UPDATE OF models, host, port, state", "endpoints", "token = NEW.token"),
            ("delete", "DELETE", "endpoints", "service_id = OLD.service_id"),
        )
    ),
)

_CHANGED = " OR ".join(f"NEW.{c}::text IS DISTINCT FROM OLD.{c}::text" for c in _WANTED)
_CLOCK = "extract(epoch FROM clock_timestamp())"

_POSTGRESQL = (
    f"""
    CREATE FUNCTION services_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.updated_at := {_CLOCK};
        IF TG_OP = 'INSERT' THEN
            NEW.name := coalesce(NEW.name, regexp_replace(NEW.recipe_name, '^.*/', '') || '-' || NEW.id);
            NEW.generation := 1;
            NEW.version := 1;
            NEW.created_at := NEW.updated_at;
        ELSE
            IF NEW.id <> OLD.id THEN
                RAISE EXCEPTION 'the id of a service never changes';
            ELSIF NEW.name IS NULL THEN
                RAISE EXCEPTION 'a service must have a name';
            ELSIF OLD.deletion_requested_at IS NOT NULL AND NEW.deletion_requested_at IS NULL THEN
                RAISE EXCEPTION 'a deleted service can not be brought back: create a new one';
            END IF;
            NEW.generation := OLD.generation + ({_CHANGED})::int;
            NEW.version := OLD.version + 1;
            NEW.created_at := OLD.created_at;
        END IF;
        UPDATE feed SET seq = seq + 1 RETURNING seq INTO NEW.change_seq;
        PERFORM pg_notify('ai_factory', '');
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER services_row BEFORE INSERT OR UPDATE ON services FOR EACH ROW EXECUTE FUNCTION services_row()",
    f"""
    CREATE FUNCTION services_delete() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.purge <> 0 THEN
            IF EXISTS (SELECT FROM attempts WHERE service_id = OLD.id AND gone_at IS NULL) THEN
                RAISE EXCEPTION '{_STILL_THERE}';
            END IF;
            RETURN OLD;
        END IF;
        UPDATE services SET deletion_requested_at = coalesce(deletion_requested_at, {_CLOCK}) WHERE id = OLD.id;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER services_delete BEFORE DELETE ON services FOR EACH ROW EXECUTE FUNCTION services_delete()",
    """
    CREATE FUNCTION attempts_closed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.closed_at IS DISTINCT FROM OLD.closed_at OR NEW.outcome IS DISTINCT FROM OLD.outcome THEN
            RAISE EXCEPTION 'a closed attempt stays closed';
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER attempts_closed BEFORE UPDATE ON attempts FOR EACH ROW "
    "WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION attempts_closed()",
    """
    CREATE FUNCTION leases_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'an epoch only grows';
    END $$
    """,
    "CREATE TRIGGER leases_epoch BEFORE UPDATE ON leases FOR EACH ROW "
    "WHEN (NEW.epoch < OLD.epoch) EXECUTE FUNCTION leases_epoch()",
    "CREATE TRIGGER leases_kept BEFORE DELETE ON leases FOR EACH ROW EXECUTE FUNCTION leases_epoch()",
    """
    CREATE FUNCTION endpoints_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('ai_factory', '');
        IF TG_OP = 'DELETE' THEN
            UPDATE feed SET seq = seq + 1;
            UPDATE endpoints SET change_seq = (SELECT seq FROM feed) WHERE service_id = OLD.service_id;
            RETURN OLD;
        END IF;
        UPDATE feed SET seq = seq + 1 RETURNING seq INTO NEW.change_seq;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER endpoints_row BEFORE INSERT OR UPDATE OF models, host, port, state ON endpoints "
    "FOR EACH ROW EXECUTE FUNCTION endpoints_row()",
    "CREATE TRIGGER endpoints_gone AFTER DELETE ON endpoints FOR EACH ROW EXECUTE FUNCTION endpoints_row()",
)

_TRIGGERS = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "feed",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_feed_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_feed")),
    )
    op.create_table(
        "installation",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_installation_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_installation")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("renewals", sa.BigInteger(), nullable=False),
        sa.Column("renewed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "services",
        sa.Column("id", sa.String(length=32), server_default=sa.text(_RANDOM_ID[dialect]), nullable=False),
        sa.Column("name", sa.String(length=160), nullable=True),
        sa.Column("recipe_name", sa.String(length=160), nullable=False),
        sa.Column("config", sa.JSON(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=True),
        sa.Column("desired_state", sa.String(length=16), server_default=sa.text("'running'"), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("deletion_requested_at", sa.Double(), nullable=True),
        sa.Column("purge", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(_IS_OBJECT[dialect], name=op.f("ck_services_config_is_object")),
        sa.CheckConstraint("desired_state IN ('running', 'stopped')", name=op.f("ck_services_desired_state_word")),
        sa.CheckConstraint(_ID_CHARACTERS[dialect], name=op.f("ck_services_id_characters")),
        sa.CheckConstraint("length(id) BETWEEN 1 AND 32", name=op.f("ck_services_id_length")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 160", name=op.f("ck_services_name_length")),
        sa.CheckConstraint("length(recipe_name) BETWEEN 1 AND 160", name=op.f("ck_services_recipe_name_length")),
        sa.CheckConstraint(
            "replicas IS NULL OR (replicas BETWEEN 0 AND 1000 AND replicas = CAST(replicas AS INTEGER))",
            name=op.f("ck_services_replicas_range"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
    )
    with op.batch_alter_table("services", schema=None) as batch_op:
        batch_op.create_index("ix_services_change_seq", ["change_seq"], unique=False)
        batch_op.create_index("ix_services_name", ["name"], unique=False)
        batch_op.create_index(
            "uq_services_living_name",
            ["name"],
            unique=True,
            sqlite_where=sa.text("deletion_requested_at IS NULL"),
            postgresql_where=sa.text("deletion_requested_at IS NULL"),
        )

    op.create_table(
        "attempts",
        sa.Column("token", sa.String(length=96), nullable=False),
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("replica", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("intent_at", sa.Double(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("submitted_at", sa.Double(), nullable=True),
        sa.Column("absent_since", sa.Double(), nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("launched_at", sa.Double(), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("serving_at", sa.Double(), nullable=True),
        sa.Column("ready_at", sa.Double(), nullable=True),
        sa.Column("unready_since", sa.Double(), nullable=True),
        sa.Column("ends_at", sa.Double(), nullable=True),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("gone_at", sa.Double(), nullable=True),
        sa.CheckConstraint("closed_at IS NULL OR outcome IS NOT NULL", name=op.f("ck_attempts_closed_has_outcome")),
        sa.CheckConstraint("gone_at IS NULL OR closed_at IS NOT NULL", name=op.f("ck_attempts_gone_is_closed")),
        sa.CheckConstraint("incarnation >= 1", name=op.f("ck_attempts_incarnation_range")),
        sa.CheckConstraint("port IS NULL OR port BETWEEN 1 AND 65535", name=op.f("ck_attempts_port_range")),
        sa.CheckConstraint("replica >= 0", name=op.f("ck_attempts_replica_range")),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_attempts_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_attempts")),
    )
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_attempts_not_gone",
            ["service_id"],
            unique=False,
            sqlite_where=sa.text("gone_at IS NULL"),
            postgresql_where=sa.text("gone_at IS NULL"),
        )
        batch_op.create_index("uq_attempts_incarnation", ["service_id", "replica", "incarnation"], unique=True)
        batch_op.create_index(
            "uq_attempts_open",
            ["service_id", "replica", "lane"],
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )

    op.create_table(
        "endpoints",
        sa.Column("token", sa.String(length=96), nullable=False),
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("replica", sa.Integer(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("state IN ('ready', 'unready')", name=op.f("ck_endpoints_state_word")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_endpoints_port_range")),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_endpoints_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_endpoints")),
    )
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.create_index("ix_endpoints_change_seq", ["change_seq"], unique=False)
        batch_op.create_index("ix_endpoints_service_id", ["service_id"], unique=False)

    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_events_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index("ix_events_service_id", ["service_id", "id"], unique=False)

    op.create_table(
        "service_status",
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("observed_generation", sa.Integer(), nullable=False),
        sa.Column("wanted_replicas", sa.Integer(), nullable=False),
        sa.Column("ready_replicas", sa.Integer(), nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_status_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("service_id", name=op.f("pk_service_status")),
    )
    op.create_table(
        "user_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_user_events_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_events")),
    )
    with op.batch_alter_table("user_events", schema=None) as batch_op:
        batch_op.create_index("ix_user_events_service_id", ["service_id"], unique=False)
    op.execute("INSERT INTO feed (singleton, seq) VALUES (1, 0)")
    installation = sa.table("installation", sa.column("singleton"), sa.column("id"), sa.column("created_at"))
    op.execute(installation.insert().values(singleton=1, id=new_id(6), created_at=time.time()))
    for statement in _TRIGGERS[dialect]:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in ("services_row", "services_delete", "endpoints_row", "attempts_closed", "leases_epoch"):
            op.execute(f"DROP FUNCTION IF EXISTS {name} CASCADE")
    with op.batch_alter_table("user_events", schema=None) as batch_op:
        batch_op.drop_index("ix_user_events_service_id")

    op.drop_table("user_events")
    op.drop_table("service_status")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("ix_events_service_id")

    op.drop_table("events")
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.drop_index("ix_endpoints_service_id")
        batch_op.drop_index("ix_endpoints_change_seq")

    op.drop_table("endpoints")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_attempts_open", sqlite_where=sa.text("closed_at IS NULL"), postgresql_where=sa.text("closed_at IS NULL")
        )
        batch_op.drop_index("uq_attempts_incarnation")
        batch_op.drop_index(
            "ix_attempts_not_gone", sqlite_where=sa.text("gone_at IS NULL"), postgresql_where=sa.text("gone_at IS NULL")
        )

    op.drop_table("attempts")
    with op.batch_alter_table("services", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_services_living_name",
            sqlite_where=sa.text("deletion_requested_at IS NULL"),
            postgresql_where=sa.text("deletion_requested_at IS NULL"),
        )
        batch_op.drop_index("ix_services_name")
        batch_op.drop_index("ix_services_change_seq")

    op.drop_table("services")
    op.drop_table("leases")
    op.drop_table("installation")
    op.drop_table("feed")
