"""No password of a database is ever shown."""

from __future__ import annotations

import pytest

from api.contract.database import SchemaError, driver_url
from api.contract.database_url import shown_url, sqlite_file

CANARY = "Canary-7"
URLS = (
    "postgresql://u:{}@host/db",
    "postgresql://:{}@host/db",
    "postgresql:///x?user=u&password={}&host=h",
    "postgresql:///x?host=h&sslpassword={}",
    "postgresql:///x?passfile=/home/u/{}",
    "postgresql:///x?options=-c%20a={}",
    "postgresql:///x?some_new_word={}",
    "postgresql:///x?password={}&password=b",
    "postgresql://u:pa@ss:{}@host/db",
    "postgresql://u:{}@host:port/db",
    "postgresql://u:pa@ss/{}@host/db",
    "postgresql://host/db password={}",
    "postgresql://host/db;password={}",
    "postgresql:/u:{}@host/db",
    "postgresql//u:{}@host/db",
    "host=h user=u password={}",
    "mysql://u:{}@host/db",
    "u:{}@host",
    "{}",
)


@pytest.mark.parametrize("url", URLS)
def test_no_form_of_a_password_is_shown(url: str) -> None:
    filled = url.format(CANARY)
    assert CANARY not in shown_url(filled)
    try:
        parsed = driver_url(filled)
    except SchemaError as refused:
        assert CANARY not in str(refused)
        assert refused.__cause__ is None, "tracebacks show it"
    else:
        assert CANARY not in shown_url(parsed)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////state/ai-factory.db", "sqlite:////state/ai-factory.db"),
        ("postgresql://u@host:5433/db?sslmode=require", "postgresql://u@host:5433/db?sslmode=require"),
        ("postgresql://u:x@[::1]/db", "postgresql://u:***@[::1]/db"),
        ("postgresql:///db?user=u&password=x&host=h", "postgresql:///db?host=h&password=***&user=u"),
        ("", "***"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_the_file_of_an_sqlite_database() -> None:
    assert str(sqlite_file("sqlite:////a/b.db")) == "/a/b.db"
    assert {sqlite_file(url) for url in ("sqlite://", "postgresql://h/db", "nonsense")} == {None}
