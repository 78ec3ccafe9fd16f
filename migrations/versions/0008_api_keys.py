"""Keys of those who use models.

The API writes them, and reads them into memory. `change_seq` is the feed's number of a key's last change, so that a
revocation is heard at once. Of a secret there is its SHA-256 alone.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TOLD = "id, name, owner, digest, start, scopes, models, created_at, expires_at, revoked_at"
_NUMBERED = "UPDATE api_keys SET change_seq = (SELECT seq FROM feed) WHERE id = NEW.id;"

_SQLITE = tuple(
    f"CREATE TRIGGER api_keys_{name} AFTER {event} ON api_keys BEGIN UPDATE feed SET seq = seq + 1; {numbered} END"
    for name, event, numbered in (
        ("insert", "INSERT", _NUMBERED),
        ("update", f"UPDATE OF {_TOLD}", _NUMBERED),
        ("delete", "DELETE", ""),
    )
)

_POSTGRESQL = (
    """
    CREATE FUNCTION api_keys_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('ai_factory', '');
        IF TG_OP = 'DELETE' THEN
            UPDATE feed SET seq = seq + 1;
            RETURN OLD;
        END IF;
        UPDATE feed SET seq = seq + 1 RETURNING seq INTO NEW.change_seq;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER api_keys_row BEFORE INSERT OR UPDATE OR DELETE ON api_keys "
    "FOR EACH ROW EXECUTE FUNCTION api_keys_row()",
)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=160), nullable=False),
        sa.Column("owner", sa.String(length=160), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("start", sa.String(length=16), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_api_keys_digest_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index("uq_api_keys_digest", "api_keys", ["digest"], unique=True)
    op.create_index("ix_api_keys_change_seq", "api_keys", ["change_seq"])
    connection = op.get_bind()
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    op.drop_table("api_keys")
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP FUNCTION api_keys_row()")
