"""`ai-factory recipes validate`."""

from __future__ import annotations

from pathlib import Path

from api.cli.context import Context
from api.cli.recipes.list import book_of
from api.contract.exits import Exit
from api.contract.recipes.book import read_recipe
from api.contract.recipes.located import RecipeError


def validate(context: Context) -> Exit:
    """Print `file:line: key: message` for every recipe that can't be used; exit 1 if there is one."""
    files = [Path(file) for file in context.arguments.files]
    problems = [text for file in files for text in _problems(file)]
    checked = len(files)
    if not files:
        book = book_of(context)
        problems = list(book.problems.values())
        checked = len(book.recipes) + len(problems)
    if context.output == "json":
        context.console.json({"checked": checked, "problems": problems})
    else:
        for problem in problems:
            context.console.line(problem)
        context.console.note(f"{checked} checked, {len(problems) or 'none'} with a problem.")
    return Exit.FAILED if problems else Exit.OK


def _problems(file: Path) -> list[str]:
    absolute = file.absolute()
    try:
        read_recipe(file, f"{absolute.parent.name}/{absolute.stem}", {})
    except RecipeError as error:
        return [str(error)]
    return []
