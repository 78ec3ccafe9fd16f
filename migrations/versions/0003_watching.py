"""What the REST API needs to be watched and to be asked twice.

`service_changes` holds, for each service, the feed's number of whatever changed of it last: its row, its status or its
endpoints. Triggers alone write it, so a change is seen whoever made it. The row without an id is a marker: up to its
number services may have been removed for good, which who comes back later can't be told one by one.

`idempotency_keys` is the API's: what was answered under which key.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TOLD = "models, host, port, state"
_KNOWN = "ON CONFLICT (service_id) DO UPDATE SET seq = excluded.seq"
_STATUS = "observed_generation, wanted_replicas, ready_replicas, conditions, spec, digest"


def _counted(service: str) -> str:
    """Give a service the feed's next number."""
    return f"""
        UPDATE feed SET seq = seq + 1;
        INSERT INTO service_changes (service_id, seq) SELECT {service}, seq FROM feed WHERE singleton = 1 {_KNOWN};
    """


# What nobody was told of counts from now on; what was told before, from then.
_REMOVED = """
    CASE WHEN OLD.deletion_requested_at IS NULL THEN (SELECT seq FROM feed)
    ELSE coalesce((SELECT seq FROM service_changes WHERE service_id = OLD.id), OLD.change_seq) END
"""
_LATER = "ON CONFLICT (service_id) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > service_changes.seq"

_SQLITE = {
    "services_changes_update": f"""
    CREATE TRIGGER services_changes_update AFTER UPDATE OF change_seq ON services BEGIN
        INSERT INTO service_changes (service_id, seq) VALUES (NEW.id, NEW.change_seq) {_KNOWN};
    END
    """,
    "services_changes_delete": f"""
    CREATE TRIGGER services_changes_delete AFTER DELETE ON services BEGIN
        UPDATE feed SET seq = seq + 1;
        INSERT INTO service_changes (service_id, seq) SELECT '', {_REMOVED} WHERE 1 {_LATER};
        DELETE FROM service_changes WHERE service_id = OLD.id;
        DELETE FROM idempotency_keys WHERE service_id = OLD.id;
    END
    """,
    "service_status_changes_insert": f"""
    CREATE TRIGGER service_status_changes_insert AFTER INSERT ON service_status BEGIN {_counted("NEW.service_id")} END
    """,
    "service_status_changes_update": f"""
    CREATE TRIGGER service_status_changes_update AFTER UPDATE OF {_STATUS} ON service_status BEGIN
        {_counted("NEW.service_id")}
    END
    """,
    # The first migration's triggers have given the endpoint its number.
    "endpoints_changes_update": f"""
    CREATE TRIGGER endpoints_changes_update AFTER UPDATE OF change_seq ON endpoints BEGIN
        INSERT INTO service_changes (service_id, seq) VALUES (NEW.service_id, NEW.change_seq) {_KNOWN};
    END
    """,
    "endpoints_changes_delete": f"""
    CREATE TRIGGER endpoints_changes_delete BEFORE DELETE ON endpoints BEGIN {_counted("OLD.service_id")} END
    """,
}

_POSTGRESQL = (
    f"""
    CREATE FUNCTION services_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            UPDATE feed SET seq = seq + 1;
            INSERT INTO service_changes (service_id, seq) SELECT '', {_REMOVED} {_LATER};
            DELETE FROM service_changes WHERE service_id = OLD.id;
            PERFORM pg_notify('ai_factory', '');
        ELSE
            INSERT INTO service_changes (service_id, seq) VALUES (NEW.id, NEW.change_seq) {_KNOWN};
        END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER services_changes AFTER INSERT OR UPDATE OR DELETE ON services "
    "FOR EACH ROW EXECUTE FUNCTION services_changes()",
    f"""
    CREATE FUNCTION told_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        service varchar := CASE WHEN TG_OP = 'DELETE' THEN OLD.service_id ELSE NEW.service_id END;
    BEGIN
        IF NOT EXISTS (SELECT FROM services WHERE id = service) THEN
            RETURN NULL;
        ELSIF TG_TABLE_NAME = 'service_status' THEN
            {_counted("service")}
            PERFORM pg_notify('ai_factory', '');
        ELSE
            INSERT INTO service_changes (service_id, seq) SELECT service, seq FROM feed WHERE singleton = 1 {_KNOWN};
        END IF;
        RETURN NULL;
    END $$
    """,
    f"CREATE TRIGGER service_status_changes AFTER INSERT OR UPDATE OF {_STATUS} ON service_status "
    "FOR EACH ROW EXECUTE FUNCTION told_changes()",
    # Triggers go by their names: this one after endpoints_gone and endpoints_row, which count.
    f"CREATE TRIGGER endpoints_told AFTER INSERT OR UPDATE OF {_TOLD} OR DELETE ON endpoints "
    "FOR EACH ROW EXECUTE FUNCTION told_changes()",
)


def upgrade() -> None:
    connection = op.get_bind()
    op.create_table(
        "service_changes",
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("service_id", name=op.f("pk_service_changes")),
    )
    op.create_index("ix_service_changes_seq", "service_changes", ["seq"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_idempotency_keys_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_at", "idempotency_keys", ["at"])
    op.create_index("ix_idempotency_keys_service_id", "idempotency_keys", ["service_id"])
    connection.exec_driver_sql("INSERT INTO service_changes (service_id, seq) SELECT id, change_seq FROM services")
    if connection.dialect.name == "sqlite":
        statements = tuple(_SQLITE.values())
    else:
        schema = str(connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one())
        owner = f"ALTER FUNCTION services_changes() SECURITY DEFINER SET search_path = {schema}, pg_temp"
        statements = (*_POSTGRESQL, owner)
    for statement in statements:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        statements = [f"DROP TRIGGER {name}" for name in _SQLITE]
    else:
        statements = [f"DROP FUNCTION {name}() CASCADE" for name in ("services_changes", "told_changes")]
    for statement in statements:
        connection.exec_driver_sql(statement)
    op.drop_table("idempotency_keys")
    op.drop_table("service_changes")
