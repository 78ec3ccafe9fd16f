"""Commands about the recipes and the site: what there is, whether it works, how it is kept."""

from __future__ import annotations

from argparse import REMAINDER

from api.cli.grammar.parser import FORMATS, Commands, command, config_flags, group

SHELLS = ("bash", "zsh", "fish")


def add_recipes(commands: Commands) -> None:
    """Add the group recipes."""
    recipes = group(
        commands, "recipes", "see, check and try the recipes of this site",
        "recipes list", "recipes show inference/vllm",
    )  # fmt: skip
    command(
        recipes, "list", "recipes:list_", "list the recipes",
        "recipes list", "recipes list -o wide  # with their files",
        formats=FORMATS,
    )  # fmt: skip
    show = command(
        recipes, "show", "recipes:show", "show a recipe and its parameters",
        "recipes show inference/vllm", "recipes show storage/postgres -o json",
        formats=("table", "json"),
    )  # fmt: skip
    show.add_argument("recipe", metavar="RECIPE")
    validate = command(
        recipes, "validate", "recipes:validate", "check recipe files",
        "recipes validate  # all of this site", "recipes validate recipes/mine/model.yaml",
        formats=("table", "json"),
    )  # fmt: skip
    validate.add_argument("files", metavar="FILE", nargs="*", help="default: all recipes of the settings")
    render = command(
        recipes, "render", "recipes:render", "print the job that a recipe would become",
        "recipes render inference/vllm --set model=Qwen/Qwen2.5-7B-Instruct --set resources.gpu=1",
    )  # fmt: skip
    render.add_argument("recipe", metavar="RECIPE")
    config_flags(render)


def add_images(commands: Commands) -> None:
    """Add the group images."""
    images = group(
        commands, "images", "see, make, verify and clear the container images of this site",
        "images list", "images pull docker://ghcr.io/owner/name:1.0",
    )  # fmt: skip
    command(
        images, "list", "images:list_", "list the images in run_dir, and who uses them",
        "images list", "images list -o wide",
        formats=FORMATS,
    )  # fmt: skip
    pull = command(
        images, "pull", "images:make", "pull an image before a service needs it",
        "images pull inference/vllm --job", "images pull docker://ghcr.io/owner/name:1.0 --refresh",
        formats=("table", "json", "name"),
    )  # fmt: skip
    pull.add_argument("what", metavar="RECIPE|REFERENCE", help="e.g. inference/vllm, or docker://owner/name@sha256:…")
    build = command(
        images, "build", "images:make", "build an image before a service needs it",
        "images build inference/vllm_dummy", "images build engine.def --job",
        formats=("table", "json", "name"),
    )  # fmt: skip
    build.add_argument("what", metavar="RECIPE|FILE.def", help="a recipe, or a definition file of Apptainer's")
    for parser in (pull, build):
        where = parser.add_mutually_exclusive_group()
        job, host = "in a job without GPUs; Ctrl-C cancels it", "on this host"
        where.add_argument("--job", dest="where", action="store_const", const="job", help=job)
        where.add_argument("--host", dest="where", action="store_const", const="host", help=host)
        parser.add_argument("--refresh", action="store_true", help="make it anew, even if it is there")
    verify = command(
        images, "verify", "images:verify",
        "compare images with what was made, and have Apptainer read them; exit 1 if one is damaged",
        "images verify", "images verify --remove",
        formats=("table", "json"),
    )  # fmt: skip
    verify.add_argument("keys", metavar="KEY", nargs="*", help="or its beginning; default: all")
    verify.add_argument("--remove", action="store_true", help="remove those that are damaged and not in use")
    prune = command(
        images, "prune", "images:prune", "remove images that nothing uses",
        "images prune --dry-run", "images prune --unused-for 7",
        formats=("table", "json", "name"),
    )  # fmt: skip
    about = "only those unused for so long; default: images.keep_days, else 30; 0: all that are unused now"
    prune.add_argument("--unused-for", type=float, metavar="DAYS", help=about)
    prune.add_argument("--dry-run", action="store_true", help="remove nothing, only tell")


def add_site(commands: Commands) -> None:
    """Add doctor, backup, restore, adopt, config and completion."""
    doctor = command(
        commands, "doctor", "doctor.command:doctor", "check everything this needs",
        "doctor",
        "doctor --timeout 600  # where a job waits for long",
        "doctor --no-job -o json",
        formats=("table", "json"),
    )  # fmt: skip
    doctor.add_argument("--no-job", dest="job", action="store_false", help="submit no job")
    doctor.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for the job (%(default)g)")
    backup = command(
        commands, "backup", "backup:backup", "write database and key into one file, while everything runs",
        "backup /backups/ai-factory.tar",
    )  # fmt: skip
    backup.add_argument("file", metavar="FILE", help="a new file; it holds secrets, and is made with mode 0600")
    restore = command(
        commands, "restore", "backup:restore", "fill an empty database from a backup",
        "restore /backups/ai-factory.tar",
    )  # fmt: skip
    restore.add_argument("file", metavar="FILE")
    adopt = command(
        commands, "adopt", "backup:adopt",
        "show the jobs on the cluster of which the database knows nothing, as after a restore",
        "adopt",
        "adopt --take  # with the controller stopped",
        "adopt --cancel k3x9pq  # the jobs of an installation that is no more",
        formats=("table", "json"),
        more="Jobs of other installations of this user are shown too.",
    )  # fmt: skip
    chosen = adopt.add_mutually_exclusive_group()
    chosen.add_argument("--take", action="store_true", help="have their services own them; no controller may run")
    about = "end all jobs of this installation, another than this database's"
    chosen.add_argument("--cancel", metavar="INSTALLATION", help=about)
    command(
        commands, "config", "configuration:show", "print the settings in effect",
        "config", "config -o json  # with where each value came from",
        formats=("table", "json"),
    )  # fmt: skip
    completion = command(
        commands, "completion", "completion:script", "print what has a shell complete commands, flags and names",
        'completion bash >~/.local/share/bash-completion/completions/ai-factory',
        'completion zsh >"${fpath[1]}/_ai-factory"',
        'completion fish >~/.config/fish/completions/ai-factory.fish',
        more="Names of services and recipes are asked of the API, if it answers within a second.",
    )  # fmt: skip
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    _hidden(commands)


def _hidden(commands: Commands) -> None:
    """Add what the scripts of `completion` ask; no help names it."""
    complete = commands.add_parser("complete", description="Print what the last word may become.", allow_abbrev=False)
    complete.set_defaults(run="api.cli.completion:complete", formats=("table",))
    complete.add_argument("words", metavar="WORD", nargs=REMAINDER)
