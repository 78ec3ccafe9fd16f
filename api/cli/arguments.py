"""The command line's grammar. Each command names the function that carries it out; it is imported when used."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter, _SubParsersAction
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn, TypeAlias

from api.cli.exits import EXIT_CODES, CliError, Exit

FORMATS = ("table", "wide", "json", "name")


class Parser(ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise a `CliError` of usage."""
        raise CliError(f"{message}. See: {self.prog} --help", Exit.USAGE)


Commands: TypeAlias = "_SubParsersAction[Parser]"


def build() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="ai-factory",
        description="Keeps AI models alive as services on a Slurm cluster.",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
        parents=[_global()],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ai-factory {program_version()}")
    parser.set_defaults(config=None, server=None, output="table", color=True, formats=("table",), flags={}, run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _programs(commands)
    _services(commands)
    _models(commands)
    _recipes(commands)
    _images(commands)
    _site(commands)
    return parser


def program_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("ai-factory-server")
    except PackageNotFoundError:
        return "(not installed)"


def _global() -> Parser:
    """Flags that stand before or after the command."""
    common = Parser(add_help=False, allow_abbrev=False)
    group = common.add_argument_group("global flags")
    group.add_argument("--config", metavar="FILE", default=SUPPRESS, help="the TOML file with the settings")
    group.add_argument("-o", "--output", choices=FORMATS, default=SUPPRESS, help="how results are written")
    group.add_argument("--server", metavar="URL", default=SUPPRESS, help="the API's address; default: the settings'")
    group.add_argument("--no-color", dest="color", action="store_false", default=SUPPRESS, help="as NO_COLOR does")
    return common


def _command(commands: Commands, name: str, run: str, about: str, formats: tuple[str, ...] = ("table",)) -> Parser:
    """Add a command that `run`, `module:function`, carries out."""
    text = about[0].upper() + about[1:] + "."
    parser = commands.add_parser(name, help=about, description=text, parents=[_global()], allow_abbrev=False)
    parser.set_defaults(run=f"api.cli.{run}", formats=formats)
    return parser


def _group(commands: Commands, name: str, about: str) -> Commands:
    parser = commands.add_parser(name, help=about, description=about, parents=[_global()], allow_abbrev=False)
    parser.set_defaults(group=parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _programs(commands: Commands) -> None:
    up = _command(commands, "up", "programs:up", "bring the database up to date, run API and controller together")
    api = _command(commands, "api", "programs:api", "run the API alone")
    for parser in (up, api):
        parser.add_argument("--host", dest="flag_api.host", metavar="HOST", help="the address to listen on")
        parser.add_argument("--port", dest="flag_api.port", type=int, metavar="PORT", help="the port to listen on")
    controller = _command(commands, "controller", "programs:controller", "run the controller alone")
    _replay(controller.add_subparsers(title="instead of running it", metavar="[COMMAND]"))
    migrate = _command(commands, "migrate", "programs:migrate", "bring the database's schema to this version")
    migrate.add_argument("--revision", metavar="R", default="head", help="bring it to this revision, up or down")
    migrate.add_argument("--check", action="store_true", help="change nothing; exit 3 unless it is as it should be")


def _replay(commands: Commands) -> None:
    replay = _command(commands, "replay", "why:replay", "decide again what the controller's log of plans holds")
    replay.add_argument("file", metavar="FILE", help="state_dir/plans.jsonl, or a part of it")
    chosen = replay.add_mutually_exclusive_group()
    chosen.add_argument("--line", type=int, metavar="N", help="only this line, counted from 1")
    chosen.add_argument("--service", metavar="ID", help="only the plans of this service, id or name")


def _services(commands: Commands) -> None:
    services = _group(commands, "services", "declare services and see how they are")
    _command(services, "list", "services:list_", "list all services", FORMATS)
    create = _command(services, "create", "services:create", "declare a service", FORMATS)
    create.add_argument("recipe", metavar="RECIPE", help="its recipe, e.g. inference/vllm")
    create.add_argument("--name", help="a name of your own: lower-case letters, digits, hyphens")
    create.add_argument("--replicas", type=int, metavar="N", help="how many copies")
    _config_flags(create)
    _wait_flags(create, "until it is running", 1800)
    get = _command(services, "get", "services:get", "show one service", FORMATS)
    get.add_argument("service", metavar="ID", help="id or name")
    describe = _command(services, "describe", "describe:describe", "tell all about one service", ("table", "json"))
    describe.add_argument("service", metavar="ID", help="id or name")
    delete = _command(services, "delete", "services:delete", "stop services for good", ("table", "name"))
    delete.add_argument("services", metavar="ID", nargs="+", help="id or name")
    _wait_flags(delete, "until their jobs have ended", 300)


def _models(commands: Commands) -> None:
    about = "tell what is wanted and seen of a service, what would be done now, and why"
    explain = _command(commands, "explain", "why:explain", about, ("table", "json"))
    explain.add_argument("service", metavar="ID", help="id or name")
    logs = _command(commands, "logs", "models:logs", "print what a service's jobs wrote", ("table", "json"))
    logs.add_argument("service", metavar="ID", help="id or name")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines of each file")
    prompt = _command(commands, "prompt", "models:prompt", "ask a service's model, print its answer", ("table", "json"))
    prompt.add_argument("service", metavar="ID", help="id or name")
    prompt.add_argument("text", metavar="TEXT", help="the prompt; - reads it from standard input")
    prompt.add_argument("--max-tokens", type=int, metavar="N")
    prompt.add_argument("--temperature", type=float, metavar="T")
    prompt.add_argument("--model", help="where the service serves several")
    prompt.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds to wait (%(default)g)")


def _recipes(commands: Commands) -> None:
    recipes = _group(commands, "recipes", "see, check and try the recipes of this site")
    _command(recipes, "list", "recipes:list_", "list the recipes", FORMATS)
    show = _command(recipes, "show", "recipes:show", "show a recipe and its parameters", ("table", "json"))
    show.add_argument("recipe", metavar="RECIPE")
    validate = _command(recipes, "validate", "recipes:validate", "check recipe files", ("table", "json"))
    validate.add_argument("files", metavar="FILE", nargs="*", help="default: all recipes of the settings")
    render = _command(recipes, "render", "recipes:render", "print the job that a recipe would become")
    render.add_argument("recipe", metavar="RECIPE")
    _config_flags(render)


def _images(commands: Commands) -> None:
    images = _group(commands, "images", "see, make, verify and clear the container images of this site")
    _command(images, "list", "images:list_", "list the images in run_dir, and who uses them", FORMATS)
    pull = _command(images, "pull", "images:make", "pull an image before a service needs it", ("table", "json", "name"))
    pull.add_argument("what", metavar="RECIPE|REFERENCE", help="e.g. inference/vllm, or docker://owner/name@sha256:…")
    build = _command(
        images, "build", "images:make", "build an image before a service needs it", ("table", "json", "name")
    )
    build.add_argument("what", metavar="RECIPE|FILE.def", help="a recipe, or a definition file of Apptainer's")
    for parser in (pull, build):
        where = parser.add_mutually_exclusive_group()
        job, host = "in a job without GPUs; Ctrl-C cancels it", "on this host"
        where.add_argument("--job", dest="where", action="store_const", const="job", help=job)
        where.add_argument("--host", dest="where", action="store_const", const="host", help=host)
        parser.add_argument("--refresh", action="store_true", help="make it anew, even if it is there")
    about = "compare images with what was made, and have Apptainer read them; exit 1 if one is damaged"
    verify = _command(images, "verify", "images:verify", about, ("table", "json"))
    verify.add_argument("keys", metavar="KEY", nargs="*", help="or its beginning; default: all")
    verify.add_argument("--remove", action="store_true", help="remove those that are damaged and not in use")
    prune = _command(images, "prune", "images:prune", "remove images that nothing uses", ("table", "json", "name"))
    about = "only those unused for so long; default: images.keep_days, else 30; 0: all that are unused now"
    prune.add_argument("--unused-for", type=float, metavar="DAYS", help=about)
    prune.add_argument("--dry-run", action="store_true", help="remove nothing, only tell")


def _site(commands: Commands) -> None:
    doctor = _command(commands, "doctor", "doctor.command:doctor", "check everything this needs", ("table", "json"))
    doctor.add_argument("--no-job", dest="job", action="store_false", help="submit no job")
    doctor.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for the job (%(default)g)")
    backup = _command(
        commands, "backup", "backup:backup", "write database and key into one file, while everything runs"
    )
    backup.add_argument("file", metavar="FILE", help="a new file; it holds secrets, and is made with mode 0600")
    restore = _command(commands, "restore", "backup:restore", "fill an empty database from a backup")
    restore.add_argument("file", metavar="FILE")
    about = "show the jobs on the cluster of which the database knows nothing, as after a restore"
    adopt = _command(commands, "adopt", "backup:adopt", about, ("table", "json"))
    adopt.add_argument("--take", action="store_true", help="have their services own them; no controller may run")
    _command(commands, "config", "configuration:show", "print the settings in effect", ("table", "json"))


def _config_flags(parser: Parser) -> None:
    parser.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a value of the config, JSON or text; dots lead into inner keys: resources.gpu=1",
    )
    parser.add_argument("--config-file", metavar="FILE", help="the config, YAML or JSON; --set is stronger")


def _wait_flags(parser: Parser, what: str, seconds: float) -> None:
    parser.add_argument("--wait", action="store_true", help=f"wait {what}")
    parser.add_argument("--timeout", type=float, default=seconds, metavar="S", help="seconds to wait (%(default)g)")
