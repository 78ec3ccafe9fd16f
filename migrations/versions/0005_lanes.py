"""Why an attempt may live beside its replica's other lane, and how many replicas the controller has decided on.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("beside", sa.String(length=64), nullable=True))
    op.add_column("service_status", sa.Column("target", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("service_status", "target")
    op.drop_column("attempts", "beside")
