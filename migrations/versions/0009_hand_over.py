"""Since when an attempt drains: a younger one of its replica has its traffic.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("draining_since", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "draining_since")
