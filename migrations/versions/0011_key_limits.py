"""How much may be asked under a key.

NULL: as much as one likes, as with all keys from before.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_LIMITS = ("requests_per_minute", "tokens_per_minute", "requests_at_once")


def upgrade() -> None:
    for column in _LIMITS:
        op.add_column("api_keys", sa.Column(column, sa.BigInteger(), nullable=True))
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":  # PostgreSQL's trigger numbers every change
        connection.exec_driver_sql(
            f"CREATE TRIGGER api_keys_limits AFTER UPDATE OF {', '.join(_LIMITS)} ON api_keys BEGIN "
            "UPDATE feed SET seq = seq + 1; "
            "UPDATE api_keys SET change_seq = (SELECT seq FROM feed) WHERE id = NEW.id; END"
        )


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TRIGGER api_keys_limits")
    for column in _LIMITS:
        op.drop_column("api_keys", column)
