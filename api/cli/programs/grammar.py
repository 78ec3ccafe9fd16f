"""The grammar of the commands that run the programs of this host."""

from __future__ import annotations

from api.cli.parser import Commands, command


def add(commands: Commands) -> None:
    """Add up, api, gateway, controller and migrate."""
    up = command(
        commands, "up", "programs.up:up", "bring the database up to date, run API and controller together",
        "up", "up --port 8010  # where 8001 is taken",
    )  # fmt: skip
    api = command(
        commands, "api", "programs.up:api", "run the API alone",
        "api --host 10.1.2.3  # needs api.admin_key_file",
    )  # fmt: skip
    gateway = command(
        commands, "gateway", "programs.up:gateway", "run the gateway alone, beside the API or on another host",
        "gateway --workers 4",
        more="It needs database_url and gateway.credentials, and on the host of the installation's key that alone.",
    )  # fmt: skip
    gateway.add_argument("--workers", dest="flag_gateway.workers", type=int, metavar="N", help="its processes")
    for parser, table in ((up, "api"), (api, "api"), (gateway, "gateway")):
        parser.add_argument("--host", dest=f"flag_{table}.host", metavar="HOST", help="the address to listen on")
        parser.add_argument("--port", dest=f"flag_{table}.port", type=int, metavar="PORT", help="the port to listen on")
    _credentials(gateway.add_subparsers(title="instead of running it", metavar="[COMMAND]"))
    controller = command(commands, "controller", "programs.up:controller", "run the controller alone", "controller")
    _replay(controller.add_subparsers(title="instead of running it", metavar="[COMMAND]"))
    migrate = command(
        commands, "migrate", "programs.migrate:migrate", "bring the database's schema to this version",
        "migrate",
        "migrate --check  # exit code 3 unless it is as it should be",
        "migrate --installation k3x9pq  # the one whose database is lost",
        "migrate --installation new  # whatever is lost",
    )  # fmt: skip
    migrate.add_argument("--revision", metavar="R", default="head", help="bring it to this revision, up or down")
    chosen = migrate.add_mutually_exclusive_group()
    chosen.add_argument("--check", action="store_true", help="change nothing; exit 3 unless it is as it should be")
    about = "what an empty database begins: the installation of this id, again, or a new one"
    chosen.add_argument("--installation", metavar="ID|new", help=about)


def _credentials(commands: Commands) -> None:
    credentials = command(
        commands, "credentials", "keys.credentials:credentials",
        "write what opens the doors of all jobs: certificates and a client's key for each of the installation's keys",
        "gateway credentials ./gateway",
        more="The installation's key is not in it. Written again after a rotation, the files of new keys are added.",
    )  # fmt: skip
    credentials.add_argument("folder", metavar="FOLDER", help="a folder of yours; what is written has mode 0600")


def _replay(commands: Commands) -> None:
    replay = command(
        commands, "replay", "programs.replay:replay", "decide again what the controller's log of plans holds",
        "controller replay plans.jsonl --service chat",
        "controller replay plans.jsonl --line 12",
    )  # fmt: skip
    replay.add_argument("file", metavar="FILE", help="state_dir/plans.jsonl, or a part of it")
    chosen = replay.add_mutually_exclusive_group()
    chosen.add_argument("--line", type=int, metavar="N", help="only this line, counted from 1")
    chosen.add_argument("--service", metavar="ID", help="only the plans of this service, id or name")
