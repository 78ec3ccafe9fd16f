"""`ai-factory recipes list` and `show`: the recipes of this site, read here, without the API."""

from __future__ import annotations

import json

import msgspec

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.terminal.console import entries
from api.cli.terminal.table import Column
from api.contract.exits import Exit
from api.contract.recipes.book import Book, Library, Recipe
from api.contract.recipes.checks import health_kind
from api.contract.recipes.schema import HealthPart

_COLUMNS = (
    Column("RECIPE"),
    Column("KIND"),
    Column("ENGINE"),
    Column("VERSION"),
    Column("DESCRIPTION", flexible=True),
)
_WIDE = (*_COLUMNS, Column("FILE"))
_PARAMETERS = (
    Column("PARAMETER"),
    Column("TYPE"),
    Column("DEFAULT", flexible=True),
    Column("DESCRIPTION", flexible=True),
)


def list_(context: Context) -> Exit:
    """List the recipes; those that can't be used are told about on standard error."""
    console, book = context.console, book_of(context)
    recipes = sorted(book.recipes.values(), key=lambda recipe: recipe.path)
    if context.output == "json":
        console.json([_summary(recipe) for recipe in recipes])
    elif context.output == "name":
        for recipe in recipes:
            console.line(recipe.path)
    else:
        wide = context.output == "wide"
        rows = [[r.path, r.content.kind, r.content.engine, r.content.version, r.content.description] for r in recipes]
        if wide:
            rows = [[*row, str(recipe.file)] for row, recipe in zip(rows, recipes, strict=True)]
        console.table(_WIDE if wide else _COLUMNS, rows, full=wide)
    if book.problems:
        console.note(f"{len(book.problems)} more can't be used. See: ai-factory recipes validate")
    return Exit.OK


def show(context: Context) -> Exit:
    """Show a recipe and its parameters."""
    recipe = _find(book_of(context), context.arguments.recipe)
    console, content = context.console, recipe.content
    if context.output == "json":
        console.json({**_summary(recipe), **msgspec.to_builtins(content), "path": recipe.path})
        return Exit.OK
    health = content.health_check or HealthPart()
    resources = {k: v for k, v in msgspec.to_builtins(content.resources).items() if v is not None}
    facts = {
        "Recipe": recipe.path,
        "Name": content.name,
        "Version": content.version,
        "Description": content.description,
        "Kind": content.kind,
        "Engine": content.engine,
        "Image": content.image or content.container_def or "none: it runs on the node itself",
        "Replicas": str(content.replicas),
        "Resources": ", ".join(f"{key} {value}" for key, value in resources.items()),
        "Health check": f"{health_kind(content)}, every {health.interval:g} s" if content.ports else "",
        "Volumes": ", ".join(f"{volume.target} ({volume.name or volume.path})" for volume in content.volumes),
        "Updates": content.update.strategy,
        "File": str(recipe.file),
    }
    entries(console, {name: value for name, value in facts.items() if value})
    if content.parameters:
        rows = [
            [name, p.type, "(required)" if p.required else json.dumps(p.default), p.description]
            for name, p in content.parameters.items()
        ]
        console.line()
        console.table(_PARAMETERS, rows)
    return Exit.OK


def book_of(context: Context) -> Book:
    """Return the recipes of the settings."""
    return Library(context.settings.recipes, context.settings.recipe).book()


def _find(book: Book, name: str) -> Recipe:
    recipe = book.find(name)
    if recipe is not None:
        return recipe
    problem = book.problem(name)
    if problem is not None:
        raise CliError(f"The recipe {name} can't be used: {problem}")
    raise CliError(f"There is no recipe {name}.{book.similar(name)} See: ai-factory recipes list", Exit.NOT_FOUND)


def _summary(recipe: Recipe) -> dict[str, str]:
    content = recipe.content
    return {
        "path": recipe.path,
        "name": content.name,
        "category": content.category,
        "description": content.description,
        "version": content.version,
        "file": str(recipe.file),
    }
