"""An installation whose database is on PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.system import System
from tests.postgres_server import PostgresServer
from tests.slurm_cluster import SlurmCluster


class Row(dict[Any, Any]):
    """A row whose columns are found by name and, as with sqlite3, by number."""

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class PostgresSystem(System):
    """As `System`, but with SQL by psql."""

    def __init__(self, folder: Path, cluster: SlurmCluster, apptainer: str, server: PostgresServer, name: str) -> None:
        super().__init__(folder, cluster, apptainer)
        self._server = server
        self._name = name
        server.psql(f"CREATE DATABASE {name}")
        self.configure("[api]", f'database_url = "{server.url(name)}"\n[api]')

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run one SQL statement, as a script would."""
        for value in values:
            quoted = str(value).replace("'", "''")
            statement = statement.replace("?", f"'{quoted}'" if isinstance(value, str) else quoted, 1)
        if not statement.lstrip().upper().startswith("SELECT"):
            self._server.psql(statement, self._name)
            return []
        lines = self._server.psql(f"SELECT row_to_json(t) FROM ({statement}) t", self._name).splitlines()
        return [Row(json.loads(line)) for line in lines]

    def close(self) -> None:
        """End everything, the database too."""
        super().close()
        self._server.psql(f"DROP DATABASE {self._name} WITH (FORCE)")
