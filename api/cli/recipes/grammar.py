"""The grammar of the commands about recipes."""

from __future__ import annotations

from api.cli.parser import FORMATS, Commands, command, config_flags, group


def add(commands: Commands) -> None:
    """Add the group recipes."""
    recipes = group(
        commands, "recipes", "see, check and try the recipes of this site",
        "recipes list", "recipes show inference/vllm",
    )  # fmt: skip
    command(
        recipes, "list", "recipes.list:list_", "list the recipes",
        "recipes list", "recipes list -o wide  # with their files",
        formats=FORMATS,
    )  # fmt: skip
    show = command(
        recipes, "show", "recipes.list:show", "show a recipe and its parameters",
        "recipes show inference/vllm", "recipes show storage/postgres -o json",
        formats=("table", "json"),
    )  # fmt: skip
    show.add_argument("recipe", metavar="RECIPE")
    validate = command(
        recipes, "validate", "recipes.validate:validate", "check recipe files",
        "recipes validate  # all of this site", "recipes validate recipes/mine/model.yaml",
        formats=("table", "json"),
    )  # fmt: skip
    validate.add_argument("files", metavar="FILE", nargs="*", help="default: all recipes of the settings")
    render = command(
        recipes, "render", "recipes.render:render", "print the job that a recipe would become",
        "recipes render inference/vllm --set model=Qwen/Qwen2.5-7B-Instruct --set resources.gpu=1",
    )  # fmt: skip
    render.add_argument("recipe", metavar="RECIPE")
    config_flags(render)
