"""What people type in SQL: nonsense is refused in words that say what to do, and there are views to read.

No table of SQLite is made anew (Alembic's batch mode would drop the triggers, and cascade): all rules are triggers
beside those of the first migration. A rule looks at a column only when it changes, so that rows from before the rule
can still be stopped and deleted.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from typing import NamedTuple

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LATEST = 253402300799
"""The last second of the year 9999: the last that can be written as ISO text."""
_COUNTED = ("generation", "version", "change_seq", "created_at", "updated_at")
_OWN = "generation, version, change_seq, created_at and updated_at are set by the database: leave them out"
_NAME = "1 to 160 letters (a-z, A-Z), digits, dots, hyphens and underscores, a letter or digit first"
_STEM = "substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1)"


def _not_words(value: str, most: int, first: str, characters: str) -> dict[str, str]:
    """Return conditions for a text that is not of these characters alone. A NUL ends what GLOB and length() see."""
    return {
        "sqlite": f"typeof({value}) <> 'text' OR length(CAST({value} AS BLOB)) NOT BETWEEN 1 AND {most}"
        f" OR length(CAST({value} AS BLOB)) <> length({value})"
        f" OR {value} GLOB '*[^{characters}]*' OR {value} NOT GLOB '[{first}]*'",
        "postgresql": f"{value} IS NULL OR length({value}) > {most} OR {value} !~ '^[{first}][{characters}]*$'",
    }


def _both(wrong: str) -> dict[str, str]:
    return {"sqlite": wrong, "postgresql": wrong}


class _Rule(NamedTuple):
    """What a row must not be, told of the column that is at fault."""

    column: str
    wrong: dict[str, str]
    """By the database that spells it so."""
    message: str
    on: tuple[str, ...] = ("INSERT", "UPDATE")
    given: str = ""
    """Asked for before all else."""


_RULES = (
    _Rule(
        "id",
        _not_words("NEW.id", 32, "0-9a-zA-Z_", "0-9a-zA-Z_"),
        message="id must be 1 to 32 letters (a-z, A-Z), digits and underscores; left out, one is made",
        on=("INSERT",),
    ),
    _Rule(
        "recipe_name",
        {
            "sqlite": "NEW.recipe_name IS NULL OR typeof(NEW.recipe_name) <> 'text' OR trim(NEW.recipe_name) = ''"
            " OR length(NEW.recipe_name) > 160 OR instr(NEW.recipe_name, char(0)) > 0",
            "postgresql": "NEW.recipe_name IS NULL OR trim(NEW.recipe_name) = '' OR length(NEW.recipe_name) > 160",
        },
        message="recipe_name must name a recipe, like inference/vllm, in 1 to 160 characters:"
        " `ai-factory recipes list` shows which there are",
    ),
    _Rule(
        "name",
        _not_words("NEW.name", 160, "0-9a-zA-Z", "0-9a-zA-Z._-"),
        message=f"name must be {_NAME}",
        given="NEW.name IS NOT NULL",
    ),
    _Rule(
        "name",
        _not_words(f"({_STEM} || '-' || NEW.id)", 160, "0-9a-zA-Z", "0-9a-zA-Z._-"),
        message=f"no name can be made of this recipe_name: give a name as well, {_NAME}",
        on=("INSERT",),
        given="NEW.name IS NULL",
    ),
    _Rule(
        "name",
        _both("lower(NEW.name) IN ('services', 'targets')"),
        message="services and targets are words of the API: choose another name",
    ),
    _Rule(
        "config",
        {
            "sqlite": "CASE WHEN typeof(NEW.config) <> 'text' OR NOT json_valid(NEW.config) THEN 1"
            " ELSE json_type(NEW.config) <> 'object' END",
            "postgresql": "json_typeof(NEW.config) IS DISTINCT FROM 'object'",
        },
        message="""config must be a JSON object, like {"model": "Qwen/Qwen2.5-0.5B-Instruct"}, or left out""",
    ),
    _Rule(
        "config",
        {
            "sqlite": r"instr(replace(NEW.config, '\\', ''), '\u0000') > 0",
            "postgresql": r"position('\u0000' IN replace(NEW.config::text, '\\', '')) > 0",
        },
        message=r"the character NUL (\u0000) can not stand in a config: take it out",
    ),
    _Rule(
        "replicas",
        {
            "sqlite": "typeof(NEW.replicas) NOT IN ('integer', 'null') OR NEW.replicas NOT BETWEEN 0 AND 1000",
            "postgresql": "NEW.replicas NOT BETWEEN 0 AND 1000 OR NEW.replicas <> trunc(NEW.replicas)",
        },
        message="replicas must be a whole number from 0 to 1000, or NULL: what config or recipe say",
    ),
    _Rule(
        "desired_state",
        _both("NEW.desired_state IS NULL OR NEW.desired_state NOT IN ('running', 'stopped')"),
        message="desired_state must be running or stopped; to be rid of a service, DELETE it",
    ),
    _Rule(
        "purge",
        {
            "sqlite": "typeof(NEW.purge) <> 'integer' OR NEW.purge NOT IN (0, 1)",
            "postgresql": "NEW.purge IS NULL OR NEW.purge NOT IN (0, 1)",
        },
        message="purge must be 0: a DELETE leaves a tombstone, or 1: it removes the row, once no job is left",
    ),
    _Rule(
        "deletion_requested_at",
        _both("NEW.deletion_requested_at IS NOT NULL"),
        message="a new service can not be deleted yet: leave deletion_requested_at out",
        on=("INSERT",),
    ),
    _Rule(
        "deletion_requested_at",
        {
            "sqlite": "typeof(NEW.deletion_requested_at) NOT IN ('real', 'integer', 'null')"
            f" OR NEW.deletion_requested_at NOT BETWEEN 0 AND {_LATEST}",
            "postgresql": f"NEW.deletion_requested_at NOT BETWEEN 0 AND {_LATEST}",
        },
        message="deletion_requested_at is a time in Unix seconds; better say DELETE FROM services",
    ),
)

_NEW = "NEW.generation <> 1 OR NEW.version <> 1 OR NEW.change_seq <> 0 OR NEW.created_at <> 0 OR NEW.updated_at <> 0"
_TAKEN = "this name is taken by another service: choose another, or stop and DELETE that one first"
_REPLACE = (
    "INSERT OR REPLACE would forget the jobs of the service that it replaces: use INSERT ... "
    "ON CONFLICT (name) WHERE deletion_requested_at IS NULL DO UPDATE SET ..."
)
_TRUNCATE = "TRUNCATE would forget jobs that run: use DELETE FROM services"
_READ_ONLY = " is for reading only: write to the table services instead"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sqlite_rules(event: str) -> str:
    checks = []
    for rule in _RULES:
        if event not in rule.on:
            continue
        asked = [rule.given] if rule.given else []
        if event == "UPDATE":
            asked.append(f"NEW.{rule.column} IS NOT OLD.{rule.column}")
        conditions = " AND ".join([*asked, f"({rule.wrong['sqlite']})"])
        checks.append(f"SELECT RAISE(ABORT, {_quoted(rule.message)}) WHERE {conditions};")
    return "\n".join(checks)


def _postgresql_rules(event: str) -> str:
    checks = []
    for rule in _RULES:
        if event not in rule.on:
            continue
        asked = [rule.given] if rule.given else []
        if event == "UPDATE":
            asked.append(f"NEW.{rule.column}::text IS DISTINCT FROM OLD.{rule.column}::text")
        conditions = " AND ".join([*asked, f"({rule.wrong['postgresql']})"])
        checks.append(f"IF {conditions} THEN {_raise(rule.message)} END IF;")
    return "\n".join(checks)


def _raise(message: str) -> str:
    """Refuse as a constraint does, for programs that tell errors by their class."""
    return f"RAISE check_violation USING MESSAGE = {_quoted(message)};"


_LIVING_NAMESAKE = "SELECT 1 FROM services WHERE name = NEW.name AND deletion_requested_at IS NULL"

_SQLITE_TRIGGERS = {
    "services_checked_insert": f"""
    CREATE TRIGGER services_checked_insert BEFORE INSERT ON services BEGIN
        {_sqlite_rules("INSERT")}
        SELECT RAISE(ABORT, {_quoted(_OWN)}) WHERE {_NEW};
        DELETE FROM services_replaced;
        INSERT INTO services_replaced (id) SELECT id FROM services
        WHERE id = NEW.id OR (name = NEW.name AND deletion_requested_at IS NULL);
    END
    """,
    # After an ON CONFLICT DO UPDATE or DO NOTHING this one is not reached.
    "services_not_replaced": f"""
    CREATE TRIGGER services_not_replaced AFTER INSERT ON services BEGIN
        SELECT RAISE(ABORT, {_quoted(_REPLACE)}) WHERE EXISTS (SELECT 1 FROM services_replaced);
    END
    """,
    "services_checked_update": f"""
    CREATE TRIGGER services_checked_update BEFORE UPDATE ON services BEGIN
        {_sqlite_rules("UPDATE")}
        SELECT RAISE(ABORT, {_quoted(_TAKEN)})
        WHERE NEW.name IS NOT OLD.name AND NEW.deletion_requested_at IS NULL
            AND EXISTS ({_LIVING_NAMESAKE} AND id <> OLD.id);
        SELECT RAISE(ABORT, {_quoted(_OWN)})
        WHERE NEW.change_seq = OLD.change_seq AND ({" OR ".join(f"NEW.{c} IS NOT OLD.{c}" for c in _COUNTED)});
    END
    """,
}

_POSTGRESQL_TRIGGERS = (
    f"""
    CREATE FUNCTION services_checked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            {_raise(_TRUNCATE)}
        ELSIF TG_OP = 'INSERT' THEN
            {_postgresql_rules("INSERT")}
            IF {_NEW} THEN {_raise(_OWN)} END IF;
        ELSE
            {_postgresql_rules("UPDATE")}
            IF {" OR ".join(f"NEW.{c} IS DISTINCT FROM OLD.{c}" for c in _COUNTED)} THEN {_raise(_OWN)} END IF;
        END IF;
        NEW.replicas := trunc(NEW.replicas);
        RETURN NEW;
    END $$
    """,
    # Triggers go by their names: this one before services_row, which counts.
    "CREATE TRIGGER services_checked BEFORE INSERT OR UPDATE ON services "
    "FOR EACH ROW EXECUTE FUNCTION services_checked()",
    "CREATE TRIGGER services_kept BEFORE TRUNCATE ON services FOR EACH STATEMENT EXECUTE FUNCTION services_checked()",
    f"""
    CREATE FUNCTION views_are_read() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE check_violation USING MESSAGE = TG_TABLE_NAME || {_quoted(_READ_ONLY)};
    END $$
    """,
    *(
        f"CREATE TRIGGER {view}_{when} {order} INSERT OR UPDATE OR DELETE ON {view} "
        f"FOR EACH {each} EXECUTE FUNCTION views_are_read()"
        for view in ("service_overview", "attempt_history")
        for when, order, each in (("read", "BEFORE", "STATEMENT"), ("read_row", "INSTEAD OF", "ROW"))
    ),
)  # fmt: skip


class _Dialect(NamedTuple):
    """What the two databases spell differently in the views."""

    conditions: str
    """All conditions of a status, with their place, type, status, reason and message."""
    iso: str
    now: str
    gathered: str
    seconds: str


_SPELLED = {
    "sqlite": _Dialect(
        # No ->>: an SQLite from before 3.38 that meets it in a view can't open the database at all.
        conditions="SELECT key AS place, json_extract(value, '$.type') AS type,"
        " json_extract(value, '$.status') AS status, json_extract(value, '$.reason') AS reason,"
        " json_extract(value, '$.message') AS message FROM json_each(t.conditions)",
        # The fraction apart: multiplied as a whole, a time of today is no longer exact to the microsecond.
        iso="strftime('%Y-%m-%dT%H:%M:%f', CAST({0} AS INTEGER)"
        " + CAST(round(({0} - CAST({0} AS INTEGER)) * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch')"
        " || '+00:00'",
        now="((julianday('now') - 2440587.5) * 86400.0)",
        gathered="SELECT group_concat(url, ' ') FROM ({0})",
        seconds="max(0.0, round({0}, 1))",
    ),
    "postgresql": _Dialect(
        conditions="SELECT place, value ->> 'type' AS type, value ->> 'status' AS status, value ->> 'reason' AS reason,"
        " value ->> 'message' AS message FROM json_array_elements(t.conditions) WITH ORDINALITY AS c (value, place)",
        iso="""to_char(to_timestamp({0}) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"+00:00"')""",
        now="extract(epoch FROM clock_timestamp())::double precision",
        gathered="SELECT string_agg(url, ' ') FROM ({0}) AS urls",
        seconds="greatest(0.0, round(({0})::numeric, 1))::double precision",
    ),
}
_URL = (
    "SELECT 'http://' || CASE WHEN host LIKE '%:%' THEN '[' || host || ']' ELSE host END || ':' || port AS url"
    " FROM endpoints WHERE service_id = s.id AND state = 'ready' AND s.desired_state = 'running'"
    " AND s.deletion_requested_at IS NULL ORDER BY replica, token"
)
_STEPS = ("intent", "submitted", "claimed", "started", "launched", "serving", "ready", "ends", "closed", "gone")


def _overview(spelled: _Dialect) -> str:
    """Return the view of services, with the word and the message of `api.contract.status`."""

    def first(value: str, where: str, order: str = "place") -> str:
        return f"(SELECT {value} FROM ({spelled.conditions}) AS found WHERE {where} ORDER BY {order} LIMIT 1)"

    order = "CASE type WHEN 'Accepted' THEN 1 WHEN 'Observed' THEN 2 ELSE 3 END, place"
    matters = (
        "message <> '' AND (type = 'Accepted' AND status = 'False' OR type = 'Observed' AND status <> 'True'"
        " OR type = 'Progressing')"
    )
    return f"""
    CREATE VIEW service_overview AS SELECT
        s.id, s.name, s.recipe_name AS recipe, s.desired_state,
        CASE
            WHEN s.desired_state <> 'running' OR s.deletion_requested_at IS NOT NULL THEN 'cancelled'
            WHEN {first("status", "type = 'Accepted'")} = 'False' THEN 'failed'
            WHEN {first("status", "type = 'Available'")} = 'True' THEN 'running'
            ELSE CASE {first("reason", "type = 'Progressing'")}
                WHEN 'BuildingImage' THEN 'building'
                WHEN 'Starting' THEN 'starting'
                WHEN 'Completed' THEN 'completed'
                WHEN 'Failed' THEN 'failed'
                ELSE 'pending'
            END
        END AS status,
        CAST(coalesce(s.replicas, t.wanted_replicas) AS INTEGER) AS replicas,
        coalesce(t.ready_replicas, 0) AS ready,
        coalesce({first("message", matters, order)}, '') AS message,
        ({_URL} LIMIT 1) AS endpoint,
        ({spelled.gathered.format(_URL)}) AS endpoints,
        s.generation,
        coalesce(t.observed_generation, 0) AS observed_generation,
        {spelled.iso.format("s.created_at")} AS created_at,
        {spelled.iso.format("s.updated_at")} AS updated_at,
        {spelled.iso.format("s.deletion_requested_at")} AS deleted_at
    FROM services AS s LEFT JOIN service_status AS t ON t.service_id = s.id
    """


def _history(spelled: _Dialect) -> str:
    """Return the view of attempts. A step that lasts is counted until now."""
    times = ", ".join(f"{spelled.iso.format(f'a.{step}_at')} AS {step}_at" for step in _STEPS)
    end = f"coalesce(a.closed_at, {spelled.now})"
    lasted = {
        "queued": f"coalesce(a.started_at, {end}) - coalesce(a.submitted_at, a.intent_at)",
        "starting": f"coalesce(a.ready_at, {end}) - a.started_at",
        "ready": f"{end} - a.ready_at",
    }
    known = {"queued": "a.intent_at", "starting": "a.started_at", "ready": "a.ready_at"}
    seconds = ", ".join(
        f"CASE WHEN {known[step]} IS NOT NULL THEN {spelled.seconds.format(span)} END AS seconds_{step}"
        for step, span in lasted.items()
    )
    return f"""
    CREATE VIEW attempt_history AS SELECT
        s.name AS service, a.service_id, a.replica, a.incarnation, a.generation, a.token, a.job_id, a.node,
        {times}, {seconds}, a.outcome, a.exit_code, a.message
    FROM attempts AS a JOIN services AS s ON s.id = a.service_id
    """


def _upgrade_sqlite() -> list[str]:
    return [
        # Which service a row that is being inserted stands against; empty but while a statement runs.
        "CREATE TABLE services_replaced (id VARCHAR(32) NOT NULL, CONSTRAINT pk_services_replaced PRIMARY KEY (id))",
        *_SQLITE_TRIGGERS.values(),
        _overview(_SPELLED["sqlite"]),
        _history(_SPELLED["sqlite"]),
        *(
            f"CREATE TRIGGER {view}_{event.lower()} INSTEAD OF {event} ON {view} BEGIN"
            f" SELECT RAISE(ABORT, {_quoted(view + _READ_ONLY)}); END"
            for view in ("service_overview", "attempt_history")
            for event in ("INSERT", "UPDATE", "DELETE")
        ),
    ]


_CHECKS = {
    "name_length": "length(name) BETWEEN 1 AND 160",
    "recipe_name_length": "length(recipe_name) BETWEEN 1 AND 160",
    "replicas_range": "replicas IS NULL OR"
    " (replicas BETWEEN 0 AND 1000 AND replicas = CAST(replicas AS INTEGER))",
    "desired_state_word": "desired_state IN ('running', 'stopped')",
}  # fmt: skip


def _retyped(**types: str) -> list[str]:
    """Give columns of PostgreSQL other types; constraints are made anew, since casts in them would stay."""
    return [
        *(f"ALTER TABLE services DROP CONSTRAINT ck_services_{name}" for name in _CHECKS),
        "ALTER TABLE services ALTER COLUMN desired_state DROP DEFAULT",
        *(f"ALTER TABLE services ALTER COLUMN {column} TYPE {kind}" for column, kind in types.items()),
        "ALTER TABLE services ALTER COLUMN desired_state SET DEFAULT 'running'",
        *(f"ALTER TABLE services ADD CONSTRAINT ck_services_{name} CHECK ({text})" for name, text in _CHECKS.items()),
    ]


def _upgrade_postgresql(schema: str) -> list[str]:
    as_owner = f"SECURITY DEFINER SET search_path = {schema}, pg_temp"
    return [
        # An integer would have rounded 1.5, a varchar(16) complained of its length, before any trigger sees it.
        *_retyped(name="text", recipe_name="text", desired_state="text", replicas="numeric"),
        # A role that may write services needs no right to the feed.
        *(f"ALTER FUNCTION {name}() {as_owner}" for name in ("services_row", "services_delete")),
        _overview(_SPELLED["postgresql"]),
        _history(_SPELLED["postgresql"]),
        *_POSTGRESQL_TRIGGERS,
    ]


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        statements = _upgrade_sqlite()
    else:
        schema = str(connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one())
        statements = _upgrade_postgresql(schema)
    for statement in statements:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    statements = [f"DROP VIEW {view}" for view in ("service_overview", "attempt_history")]
    if connection.dialect.name == "sqlite":
        statements += [f"DROP TRIGGER {name}" for name in _SQLITE_TRIGGERS]
        statements.append("DROP TABLE services_replaced")
    else:
        statements += [
            "DROP FUNCTION views_are_read()",
            "DROP FUNCTION services_checked() CASCADE",
            *(f"ALTER FUNCTION {name}() SECURITY INVOKER RESET ALL" for name in ("services_row", "services_delete")),
            *_retyped(name="varchar(160)", recipe_name="varchar(160)", desired_state="varchar(16)", replicas="integer"),
        ]
    for statement in statements:
        connection.exec_driver_sql(statement)
