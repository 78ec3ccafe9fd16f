"""What every command is given."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

from api.cli.terminal.console import Console
from api.contract.configuration import PREFIX, expanded, process_environment
from api.contract.settings import Settings

UNIX = "unix:"
"""What the address of a server begins with that is a Unix socket's path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The command line, read; the settings in effect; where to write."""

    arguments: Namespace
    settings: Settings
    flags: dict[str, str]
    """Settings given as flags: dotted key -> text."""
    console: Console
    output: str
    """table, wide, json or name; YAML counts as JSON, which the console then writes as YAML."""

    def child_environment(self) -> dict[str, str]:
        """Return an environment in which a child program comes to the same settings as this one."""
        environment = process_environment()
        if self.arguments.config:
            environment[f"{PREFIX}CONFIG"] = str(expanded(self.arguments.config).absolute())
        for path, text in self.flags.items():
            environment[PREFIX + path.replace(".", "_").upper()] = text
        return environment


def server_url(settings: Settings) -> str:
    """Return how the command line on this host reaches the API of the settings: `http://…`, or `unix:PATH`."""
    return f"{UNIX}{settings.api_socket}" if settings.api.require_key else tcp_url(settings)


def tcp_url(settings: Settings) -> str:
    """Return the address under which everything else on this host reaches the API of the settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.api.host, settings.api.host)  # noqa: S104
    scheme = "http" if settings.api.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{settings.api.port}" if ":" in host else f"{scheme}://{host}:{settings.api.port}"
