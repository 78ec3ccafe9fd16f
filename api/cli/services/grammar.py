"""The grammar of the commands about services."""

from __future__ import annotations

from functools import partial

from api.cli.parser import (
    FORMATS,
    Commands,
    Parser,
    config_flags,
    group,
    service_argument,
    timeout_flag,
    wait_flags,
)
from api.cli.parser import command as local_command
from api.cli.services.declarations import ACCESS_WORDS
from api.cli.services.rows import STATUSES

command = partial(local_command, is_local=False)

READY_SECONDS = 1800.0
STOPPED_SECONDS = 300.0


def add_services(commands: Commands) -> None:
    """Add the group services."""
    services = group(
        commands, "services", "declare services, change them and see how they are",
        "services create inference/vllm --name chat --set model=Qwen/Qwen2.5-7B-Instruct --wait",
        "services list",
        "services describe chat",
    )  # fmt: skip
    _seen(services)
    _declared(services)
    _changed(services)
    _rolled_out(services)


def _seen(services: Commands) -> None:
    list_ = command(
        services, "list", "services.list:list_", "list the services",
        "services list",
        "services list -o wide  # nothing shortened, with endpoints",
        "services list --status starting,failed --recipe inference/vllm -o name",
        "services list -l applied_as=team-a  # by what stands in the config",
        formats=FORMATS,
        more="A deleted service is shown as stopping until nothing of it is left on the cluster.",
    )  # fmt: skip
    list_.add_argument("--all", action="store_true", help="deleted ones too, as long as they are remembered")
    list_.add_argument(
        "--status", dest="statuses", metavar="WORD", action="append", default=[],
        help=f"only with this status, or one of several with commas between: {', '.join(STATUSES)}",
    )  # fmt: skip
    list_.add_argument("--recipe", metavar="RECIPE", help="only of this recipe, by its path or its stem")
    list_.add_argument(
        "-l", "--selector", dest="selectors", metavar="KEY=VALUE", action="append", default=[],
        help="only with this value in the config; dots lead into inner keys: resources.gpu=1",
    )  # fmt: skip
    get = command(
        services, "get", "services.list:get", "show one service",
        "services get chat", "services get chat -o json",
        formats=FORMATS,
    )  # fmt: skip
    service_argument(get)
    describe = command(
        services, "describe", "services.describe:describe", "tell all about one service",
        "services describe chat",
        formats=("table", "json", "yaml"),
    )  # fmt: skip
    service_argument(describe)
    events = command(
        services, "events", "services.history:events", "print what happened to a service, the newest last",
        "services events chat --tail 20",
        "services events chat -f  # goes on until Ctrl-C",
        formats=("table", "json"),
    )  # fmt: skip
    service_argument(events)
    events.add_argument("--tail", type=int, default=100, metavar="N", help="only the last N (%(default)d)")
    events.add_argument("-f", "--follow", action="store_true", help="go on as more happens")
    history = command(
        services, "history", "services.history:history", "list a service's attempts, each a Slurm job, the newest last",
        "services history chat", "services history chat -o wide  # with every step's time",
        formats=("table", "wide", "json"),
    )  # fmt: skip
    service_argument(history)
    history.add_argument("--tail", type=int, default=100, metavar="N", help="only the last N (%(default)d)")
    wait = command(
        services, "wait", "services.wait:wait", "wait until services are as they should be, and show how far they are",
        "services wait chat",
        "services wait chat search --timeout 600",
        "services wait train --for completed",
        "services wait chat --for deleted",
        formats=FORMATS,
    )  # fmt: skip
    service_argument(wait, nargs="+")
    wait.add_argument(
        "--for",
        dest="what",
        choices=("ready", "deleted", "completed"),
        default="ready",
        help="ready: all replicas answer; deleted: no job is left; completed: its job has ended well (%(default)s)",
    )
    timeout_flag(wait, READY_SECONDS)


def _declared(services: Commands) -> None:
    create = command(
        services, "create", "services.create:create", "declare a service",
        "services create inference/vllm --set model=Qwen/Qwen2.5-7B-Instruct --set resources.gpu=1",
        "services create inference/vllm_dummy --name chat --replicas 2 --wait",
        "services create inference/vllm --set extra_args='[\"--enforce-eager\"]' --dry-run  # checks it, makes nothing",
        "services create storage/postgres --name db --config-file db.yaml",
        "services create inference/vllm --name ours --access project",
        formats=FORMATS,
    )  # fmt: skip
    create.add_argument("recipe", metavar="RECIPE", help="its recipe, e.g. inference/vllm")
    create.add_argument("--name", help="a name of your own: lower-case letters, digits, hyphens")
    create.add_argument("--replicas", type=int, metavar="N", help="how many copies")
    _access_flag(create, "default: as the site has it")
    config_flags(create)
    create.add_argument("--dry-run", action="store_true", help="have it checked, create nothing")
    wait_flags(create, "until it is running", READY_SECONDS)
    delete = command(
        services, "delete", "services.create:delete", "stop services for good",
        "services delete chat", "services delete chat search --wait  # until their jobs have ended",
        "services delete -f services.yaml",
        formats=("table", "name"),
    )  # fmt: skip
    service_argument(delete, nargs="*")
    delete.add_argument(
        "-f", "--file", dest="files", metavar="FILE", nargs="+", action="extend", default=[],
        help="those that a file for apply names; - reads standard input",
    )  # fmt: skip
    wait_flags(delete, "until their jobs have ended", STOPPED_SECONDS)


def _changed(services: Commands) -> None:
    scale = command(
        services, "scale", "services.scale:scale", "change how many replicas a service has",
        "services scale chat 3 --wait", "services scale chat 0  # keeps it, without a job",
        formats=FORMATS,
    )  # fmt: skip
    service_argument(scale)
    scale.add_argument("replicas", metavar="N", type=int, help="from 0 to 1000")
    wait_flags(scale, "until so many answer", READY_SECONDS)
    restart = command(
        services, "restart", "services.restart:restart", "launch every replica of a service anew, one after the other",
        "services restart chat --wait",
        formats=FORMATS,
        more="It is a change like any other: the config's `restarted_at` becomes the time of now. A service that was "
        "given up is tried again.",
    )  # fmt: skip
    service_argument(restart)
    wait_flags(restart, "until all replicas answer again", READY_SECONDS)
    stop = command(
        services, "stop", "services.restart:stop", "end a service's jobs, and keep the service",
        "services stop chat",
        formats=FORMATS,
    )  # fmt: skip
    service_argument(stop)
    start = command(
        services, "start", "services.restart:start", "start a stopped service again",
        "services start chat --wait",
        formats=FORMATS,
    )  # fmt: skip
    service_argument(start)
    wait_flags(start, "until it is running", READY_SECONDS)
    edit = command(
        services, "edit", "services.edit:edit", "change a service in an editor ($VISUAL, $EDITOR or vi)",
        "services edit chat",
        formats=FORMATS,
        more="What is refused is shown again, with the reason on top. An empty file, or one without a change, changes "
        "nothing. Only your own changes are sent: what others change meanwhile is kept.",
    )  # fmt: skip
    service_argument(edit)


def _rolled_out(services: Commands) -> None:
    rollout = group(
        services, "rollout", "see how far a change of a service is, go back, hold it and go on",
        "services rollout status chat --wait",
        "services rollout history chat",
        "services rollout pause chat",
    )  # fmt: skip
    formats = ("table", "json", "yaml", "name")
    status = command(
        rollout, "status", "services.rollout:status", "tell how far the last change of a service is",
        "services rollout status chat",
        "services rollout status chat --wait --timeout 600",
        formats=formats,
        more="With --wait it ends with 0 once all replicas run what is wanted now, 1 if that has failed, 3 if a job of "
        "it can never start as things are, and 6 if it is not through within --timeout; one that is paused is waited "
        "for. So `|| ai-factory services rollout undo chat` behind it goes back.",
    )  # fmt: skip
    service_argument(status)
    status.add_argument(
        "--wait", "--watch", dest="wait", action="store_true",
        help="wait until it is through or has failed; --watch, as kubectl has it, is the same",
    )  # fmt: skip
    timeout_flag(status, READY_SECONDS)
    history = command(
        rollout, "history", "services.rollout:history", "list what the last generations asked for, the newest last",
        "services rollout history chat", "services rollout history chat -o wide  # with their configs",
        formats=("table", "wide", "json", "yaml"),
        more="The last ten are kept that asked for another launch than the one before. The number of replicas, and "
        "whether it runs, is no part of that.",
    )  # fmt: skip
    service_argument(history)
    undo = command(
        rollout, "undo", "services.rollout:undo", "go back to what a service asked for before its last change",
        "services rollout undo chat --wait",
        "services rollout undo chat --to 3  # a generation of its history",
        formats=formats,
        more="It is a change like any other, a new generation. Recipe and config become what they were; the number of "
        "replicas stays.",
    )  # fmt: skip
    service_argument(undo)
    undo.add_argument(
        "--to", dest="generation", metavar="GENERATION", type=int, help="this one instead of the one before"
    )
    wait_flags(undo, "until all replicas run it", READY_SECONDS)
    pause = command(
        rollout, "pause", "services.rollout:pause", "hold changes of a service back from what runs",
        "services rollout pause chat",
        formats=formats,
        more="What fails, or hands over because its job ends, is replaced by what is wanted now all the same.",
    )  # fmt: skip
    service_argument(pause)
    resume = command(
        rollout, "resume", "services.rollout:resume", "go on with what a pause has held back",
        "services rollout resume chat --wait",
        formats=formats,
    )  # fmt: skip
    service_argument(resume)
    wait_flags(resume, "until all replicas run what is wanted", READY_SECONDS)


def add_declared(commands: Commands) -> None:
    """Add apply, diff and export."""
    apply = command(
        commands, "apply", "services.apply:apply", "make the services of files what the files say",
        "apply -f services.yaml  # shows the difference, and asks",
        "apply -f a.yaml b.yaml --yes",
        "apply -f services/  # its files *.yaml, *.yml and *.json",
        "apply -f services.yaml --dry-run",
        "apply -f services.yaml --as team-a --prune  # also deletes what this set had before",
        more="A service that is not there is created, one that differs is changed, found by its name. `--as SET` "
        "writes the set's name into each config (`applied_as`); `--prune` deletes services of that set, and no others, "
        "that are in none of the files any more.",
        formats=("table", "json"),
    )  # fmt: skip
    _file_flags(apply)
    _access_flag(apply, "of services whose file does not say; default: as it is")
    apply.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    apply.add_argument("--dry-run", action="store_true", help="show the difference, change nothing")
    diff = command(
        commands, "diff", "services.apply:diff", "show what apply would change",
        "diff -f services.yaml",
        "diff -f services.yaml --as team-a --prune",
        more="Exit code 0: nothing, 1: something; others: it can't be told.",
        formats=("table", "json"),
    )  # fmt: skip
    _file_flags(diff)
    _access_flag(diff, "as for apply")
    export = command(
        commands, "export", "services.apply:export", "print services as a file that apply takes",
        "export >services.yaml  # all there are", "export chat search",
        formats=("table", "json"),
    )  # fmt: skip
    export.add_argument("services", metavar="ID", nargs="*", help="id or name; default: all")


def _access_flag(parser: Parser, otherwise: str) -> None:
    parser.add_argument(
        "--access", choices=ACCESS_WORDS, help=f"who sees it and may ask it, beside its owner ({otherwise})"
    )


def _file_flags(parser: Parser) -> None:
    parser.add_argument(
        "-f", "--file", dest="files", metavar="FILE", nargs="+", action="extend", required=True,
        help="YAML, one service a document (---); all such files of a folder; - reads standard input",
    )  # fmt: skip
    parser.add_argument("--as", dest="applied_as", metavar="SET", help="the set to which these services belong")
    parser.add_argument("--prune", action="store_true", help="delete services of the set that no file names")


def add_models(commands: Commands) -> None:
    """Add explain, logs, watch, prompt and chat."""
    explain = local_command(
        commands, "explain", "services.explain:explain",
        "tell what is wanted and seen of a service, what would be done now, and why",
        "explain chat", "explain chat -o json",
        formats=("table", "json"),
    )  # fmt: skip
    service_argument(explain)
    logs = command(
        commands, "logs", "services.logs:logs", "print what a service's jobs wrote",
        "logs chat --tail 50",
        "logs chat -f  # goes on from attempt to attempt, until Ctrl-C",
        "logs chat --replica 0 --attempt 2",
        formats=("table", "json"),
    )  # fmt: skip
    service_argument(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they grow; ends with the service")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines of each file")
    logs.add_argument("--replica", type=int, metavar="R", help="only of this replica, counted from 0")
    logs.add_argument("--attempt", type=int, metavar="A", help="of this attempt instead of the newest")
    watch = command(
        commands, "watch", "services.watch:watch",
        "show services as they change: a table, or a line a change where piped",
        "watch", "watch chat -o json  # one object a line",
        formats=("table", "json"),
    )  # fmt: skip
    watch.add_argument("service", metavar="ID", nargs="?", help="id or name; default: all services")
    watch.add_argument("--timeout", type=float, metavar="S", help="end after so many seconds")
    prompt = command(
        commands, "prompt", "services.prompt:prompt", "ask a service's model, print its answer",
        'prompt chat "What is the capital of France?"',
        'prompt chat "Tell me a story." --stream --max-tokens 500',
        "prompt chat - <question.txt  # reads standard input",
        formats=("table", "json"),
    )  # fmt: skip
    service_argument(prompt)
    prompt.add_argument("text", metavar="TEXT", help="the prompt; - reads it from standard input")
    prompt.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    prompt.add_argument("--stream", action="store_true", help="print the answer as it comes")
    prompt.add_argument("--max-tokens", type=int, metavar="N", help="at most so many tokens (the API's own: 150)")
    prompt.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest word")
    prompt.add_argument("--model", help="where the service serves several")
    prompt.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds to wait (%(default)g)")
    chat = command(
        commands, "chat", "services.chat:chat", "talk with a model",
        "chat qwen", 'chat qwen --system "You answer in one sentence."',
    )  # fmt: skip
    service_argument(chat)
    chat.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    chat.add_argument("--max-tokens", type=int, metavar="N", help="at most so many tokens an answer")
    chat.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest word")
    chat.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds of silence (%(default)g)")
