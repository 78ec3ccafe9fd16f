"""What gateways have heard, and since when nobody new comes to an attempt that drains.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("draining_feed", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("shut_at", sa.Double(), nullable=True))
    op.execute("UPDATE attempts SET draining_feed = (SELECT seq FROM feed) WHERE draining_since IS NOT NULL")
    op.create_table(
        "gateways",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.Double(), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("signs", sa.BigInteger(), nullable=False),
        sa.Column("heard_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateways")),
    )


def downgrade() -> None:
    op.drop_table("gateways")
    op.drop_column("attempts", "shut_at")
    op.drop_column("attempts", "draining_feed")
