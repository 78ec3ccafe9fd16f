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
        "adopt", "adopt --take  # with the controller stopped",
        formats=("table", "json"),
    )  # fmt: skip
    adopt.add_argument("--take", action="store_true", help="have their services own them; no controller may run")
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
