"""What each generation of a service asked to be launched, and whether changes are held back from what runs.

`service_generations` keeps the last ten generations whose recipe or config differ from the one before (a number of
replicas in the config is none of it: going back does not scale). Triggers alone write it, in the transaction of the
change: they are the only place that sees every writer and every generation, the API's, a script's and those that the
controller never saw because the next one came first.

A change of `rollout_paused` is a new version of the service and no new generation. (On PostgreSQL the first
migration's trigger already counts it so.)

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_KEPT = 10
_PAUSED = "rollout_paused must be 1: changes wait, or 0: they are rolled out"
_COLUMNS = "service_id, generation, recipe_name, config, at"
_NEWEST = "SELECT max(generation) FROM service_generations WHERE service_id = NEW.id"
_FORGET = f"""
    DELETE FROM service_generations WHERE service_id = NEW.id AND generation <= (
        SELECT generation FROM service_generations WHERE service_id = NEW.id
        ORDER BY generation DESC LIMIT 1 OFFSET {_KEPT}
    );
"""


def _remembered(launched: str) -> str:
    """Write down a generation that asks for another launch than the one before; `launched` spells what of a config."""
    return f"""
    INSERT INTO service_generations ({_COLUMNS})
    SELECT NEW.id, NEW.generation, NEW.recipe_name, NEW.config, NEW.updated_at
    WHERE NOT EXISTS (
        SELECT 1 FROM service_generations AS g
        WHERE g.service_id = NEW.id AND g.generation = ({_NEWEST}) AND g.recipe_name = NEW.recipe_name
            AND {launched.format("g.config")} = {launched.format("NEW.config")}
    );
    {_FORGET}
    """


_SQLITE = {
    **{
        f"services_rollout_{event.lower()}": f"CREATE TRIGGER services_rollout_{event.lower()} BEFORE {event}"
        f" ON services BEGIN SELECT RAISE(ABORT, '{_PAUSED}')"
        " WHERE typeof(NEW.rollout_paused) <> 'integer' OR NEW.rollout_paused NOT IN (0, 1); END"
        for event in ("INSERT", "UPDATE")
    },
    "services_rollout_counted": """
    CREATE TRIGGER services_rollout_counted AFTER UPDATE OF rollout_paused ON services WHEN OLD.change_seq > 0 BEGIN
        UPDATE feed SET seq = seq + 1;
        UPDATE services SET
            version = OLD.version + 1, updated_at = (julianday('now') - 2440587.5) * 86400.0,
            change_seq = (SELECT seq FROM feed)
        WHERE id = NEW.id;
    END
    """,
    # Reached by way of the triggers that count: a new service has no number in the feed before it has its generation.
    "services_generations": f"""
    CREATE TRIGGER services_generations AFTER UPDATE OF generation ON services
    WHEN OLD.change_seq = 0 OR NEW.generation <> OLD.generation BEGIN
        {_remembered("json_remove({}, '$.replicas')")}
    END
    """,
    "services_generations_gone": """
    CREATE TRIGGER services_generations_gone AFTER DELETE ON services BEGIN
        DELETE FROM service_generations WHERE service_id = OLD.id;
    END
    """,
}

# Key by key, as text: jsonb would refuse numbers that a config may hold.
_LAUNCHED = (
    "(SELECT coalesce(json_object_agg(key, value ORDER BY key)::text, '') FROM json_each({}) WHERE key <> 'replicas')"
)


def _postgresql(schema: str) -> tuple[str, ...]:
    return (
        f"""
        CREATE FUNCTION services_rollout() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.rollout_paused IS NULL OR NEW.rollout_paused NOT IN (0, 1) THEN
                RAISE check_violation USING MESSAGE = '{_PAUSED}';
            END IF;
            RETURN NEW;
        END $$
        """,
        "CREATE TRIGGER services_rollout BEFORE INSERT OR UPDATE ON services "
        "FOR EACH ROW EXECUTE FUNCTION services_rollout()",
        # A role that may write services needs no right to what is remembered of them.
        f"""
        CREATE FUNCTION services_generations() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW.generation = OLD.generation THEN
                RETURN NULL;
            END IF;
            BEGIN
                {_remembered(_LAUNCHED)}
            EXCEPTION WHEN data_exception THEN  -- half a character: a config may hold it, and can't be taken apart then
                {_remembered("{}::text")}
            END;
            RETURN NULL;
        END $$
        """,
        "CREATE TRIGGER services_generations AFTER INSERT OR UPDATE ON services "
        "FOR EACH ROW EXECUTE FUNCTION services_generations()",
    )


def upgrade() -> None:
    connection = op.get_bind()
    op.add_column("services", sa.Column("rollout_paused", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "service_generations",
        sa.Column("service_id", sa.String(length=32), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("recipe_name", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_generations_service_id_services"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("service_id", "generation", name=op.f("pk_service_generations")),
    )
    op.execute(
        f"INSERT INTO service_generations ({_COLUMNS}) "
        "SELECT id, generation, recipe_name, config, updated_at FROM services"
    )
    if connection.dialect.name == "sqlite":
        statements = tuple(_SQLITE.values())
    else:
        schema = str(connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one())
        statements = _postgresql(schema)
    for statement in statements:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        statements = [f"DROP TRIGGER {name}" for name in _SQLITE]
    else:
        statements = [f"DROP FUNCTION services_{name}() CASCADE" for name in ("rollout", "generations")]
    for statement in statements:
        connection.exec_driver_sql(statement)
    op.drop_table("service_generations")
    op.drop_column("services", "rollout_paused")
