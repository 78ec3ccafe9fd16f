"""How many of the failures behind an attempt speak against what was launched: they alone count towards giving up.

Of attempts from before, all failures are taken for such, as they were.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("faults", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE attempts SET faults = failures")


def downgrade() -> None:
    op.drop_column("attempts", "faults")
