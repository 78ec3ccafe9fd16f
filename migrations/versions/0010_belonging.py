"""Whose a service is, and in which project a key works.

Services from before, and those that name nobody, are the operator's. A change of these columns is a new version of the
service and no new generation: nothing of its jobs follows from them. (On PostgreSQL the first migration's trigger
already counts it so.)

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TOLD = "id, name, owner, digest, start, scopes, models, created_at, expires_at, revoked_at"
_LENGTH = "{column} must be 1 to 160 characters, or NULL: {none}"
_RULES = {
    "owner": ("length(NEW.owner) NOT BETWEEN 1 AND 160", _LENGTH.format(column="owner", none="the operator")),
    "project": ("length(NEW.project) NOT BETWEEN 1 AND 160", _LENGTH.format(column="project", none="none")),
    "access": (
        "NEW.access NOT IN ('owner', 'project', 'everyone')",
        "access must be owner, project or everyone, or NULL: what the site says",
    ),
}


def _keys_updated(columns: str) -> tuple[str, str]:
    """Number a key's change in the feed, where one of these columns changes."""
    return (
        "DROP TRIGGER api_keys_update",
        f"CREATE TRIGGER api_keys_update AFTER UPDATE OF {columns} ON api_keys BEGIN UPDATE feed SET seq = seq + 1; "
        "UPDATE api_keys SET change_seq = (SELECT seq FROM feed) WHERE id = NEW.id; END",
    )


_CHECKS = "\n".join(f"SELECT RAISE(ABORT, '{message}') WHERE {wrong};" for wrong, message in _RULES.values())
_SQLITE = (
    *(
        f"CREATE TRIGGER services_belonging_{event.lower()} BEFORE {event} ON services BEGIN {_CHECKS} END"
        for event in ("INSERT", "UPDATE")
    ),
    """
    CREATE TRIGGER services_belonging_counted AFTER UPDATE OF owner, project, access ON services
    WHEN OLD.change_seq > 0 BEGIN
        UPDATE feed SET seq = seq + 1;
        UPDATE services SET
            version = OLD.version + 1, updated_at = (julianday('now') - 2440587.5) * 86400.0,
            change_seq = (SELECT seq FROM feed)
        WHERE id = NEW.id;
    END
    """,
    *_keys_updated(f"{_TOLD}, project, recipes"),
)

_RAISED = "\n".join(
    f"IF {wrong} THEN RAISE check_violation USING MESSAGE = '{message}'; END IF;" for wrong, message in _RULES.values()
)
_POSTGRESQL = (
    f"CREATE FUNCTION services_belonging() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_RAISED} RETURN NEW; END $$",
    "CREATE TRIGGER services_belonging BEFORE INSERT OR UPDATE ON services "
    "FOR EACH ROW EXECUTE FUNCTION services_belonging()",
)


def upgrade() -> None:
    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    for column, length in (("owner", 160), ("project", 160), ("access", 16)):
        op.add_column("services", sa.Column(column, sa.String(length) if is_sqlite else sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("project", sa.String(length=160), nullable=True))
    op.add_column("api_keys", sa.Column("recipes", sa.JSON(), nullable=True))
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        triggers = ("insert", "update", "counted")
        statements = [f"DROP TRIGGER services_belonging_{name}" for name in triggers] + [*_keys_updated(_TOLD)]
    else:
        statements = ["DROP FUNCTION services_belonging() CASCADE"]
    for statement in statements:
        connection.exec_driver_sql(statement)
    for table, columns in (("services", ("owner", "project", "access")), ("api_keys", ("project", "recipes"))):
        for column in columns:
            op.drop_column(table, column)
