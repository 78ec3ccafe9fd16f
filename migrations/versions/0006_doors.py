"""Which attempts are reached through a door, and under which of the installation's keys it was made.

NULL: there is no door, and the engine listens on a port of its node. The overview says https where there is one.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from api.contract.database import SchemaError

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OVERVIEW, _PLAIN = "service_overview", "'http://'"
_EITHER = "CASE WHEN door IS NULL THEN 'http://' ELSE 'https://' END"
_BEHIND_DOORS = """
    SELECT DISTINCT s.name FROM attempts AS a JOIN services AS s ON s.id = a.service_id
    WHERE a.door IS NOT NULL AND a.gone_at IS NULL ORDER BY s.name
"""
_MOST_NAMED = 5


def upgrade() -> None:
    for table in ("attempts", "endpoints"):
        op.add_column(table, sa.Column("door", sa.String(length=16), nullable=True))
    _replace_overview(_EITHER)


def downgrade() -> None:
    _refuse_while_doors_are_open()
    _replace_overview(_PLAIN)
    for table in ("endpoints", "attempts"):
        op.drop_column(table, "door")


def _replace_overview(scheme: str) -> None:
    """Have the view show endpoints with this scheme; else it is as it was made."""
    connection = op.get_bind()
    made: Any = context.script.get_revision("0002").module
    dialect = connection.dialect.name
    view = made._overview(made._SPELLED[dialect]).replace(_PLAIN, scheme)
    if dialect == "postgresql":  # replaced, it keeps its triggers, and the rights that people were given to it
        statements = [view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")]
    else:
        query = f"SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{_OVERVIEW}'"
        triggers = connection.exec_driver_sql(query).scalars().all()
        statements = [f"DROP VIEW {_OVERVIEW}", view, *triggers]
    for statement in statements:
        connection.exec_driver_sql(statement)


def _refuse_while_doors_are_open() -> None:
    """Raise `SchemaError` while jobs are there that an older version can't talk to."""
    found = op.get_bind().exec_driver_sql(_BEHIND_DOORS).scalars().all()
    if found:
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise SchemaError(
            f"Jobs of {', '.join(found[:_MOST_NAMED])}{more} have a door, which older versions don't know: they would "
            "never reach the engines behind. With the programs of this version running, stop these services "
            "(ai-factory services stop NAME) and wait until nothing is left of them on the cluster; then go back, and "
            "start them again."
        )
