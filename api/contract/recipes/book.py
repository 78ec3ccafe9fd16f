"""The recipes of this site: found in folders, read, merged with the site's own changes, checked."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean

from api.contract.job.own_trouble import is_own_trouble
from api.contract.job.private import open_regular
from api.contract.recipes.checks import problems
from api.contract.recipes.located import Layer, Layers, RecipeError, check_texts, line_of, located
from api.contract.recipes.schema import RecipeFile
from api.contract.spelling import did_you_mean

LARGEST_FILE = 1_000_000
MOST_VALUES = 10_000
"""So many values a recipe may hold once its aliases are followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe, checked, with the texts of the files that travel with it."""

    path: str
    """`category/stem`: its name everywhere."""
    file: Path
    content: RecipeFile
    definition: str | None
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name it gives itself."""
        return self.content.name


@dataclass(frozen=True, slots=True)
class Book:
    """All recipes, and what is wrong with those that can't be used (by path)."""

    recipes: Mapping[str, Recipe]
    problems: Mapping[str, str]

    def find(self, name: str) -> Recipe | None:
        """Find a recipe by its path, its stem or the name it gives itself, in that order."""
        if name in self.recipes:
            return self.recipes[name]
        by_stem = [r for path, r in self.recipes.items() if path.rpartition("/")[2] == name]
        by_name = [r for r in self.recipes.values() if r.name == name]
        return next(iter(by_stem + by_name), None)

    def problem(self, name: str) -> str | None:
        """Return what is wrong with a recipe that exists but can't be used."""
        matches = (text for path, text in self.problems.items() if name in (path, path.rpartition("/")[2]))
        return next(matches, None)

    def similar(self, name: str) -> str:
        """Return a question that names the recipes which were probably meant; else what there are. A blank leads."""
        stems = {path.rpartition("/")[2]: path for path in self.recipes}
        return (
            did_you_mean(name, self.recipes if "/" in name else stems)
            or f" There are: {', '.join(sorted(self.recipes))}."
        )


class Library:
    """Reads the book anew when a file changed."""

    def __init__(self, folders: Sequence[Path], changes: Mapping[str, Mapping[str, Any]]) -> None:
        self._folders = folders
        self._changes = changes
        self._read: tuple[object, Book] = (None, Book({}, {}))

    def book(self) -> Book:
        """Return all recipes as they are on disk now; raises `OSError` if this host can't look."""
        stamp = list(_stamps(self._folders))
        known, book = self._read
        if stamp != known:
            # One assignment: threads that read at the same time never see a book under another one's stamp.
            book = read_book(list(_files(self._folders)), self._changes)
            self._read = stamp, book
        return book


def read_book(files: Sequence[tuple[Path, Path]], changes: Mapping[str, Mapping[str, Any]]) -> Book:
    """Read recipe files, given with the folder each was found in; the first of a path wins."""
    recipes: dict[str, Recipe] = {}
    problems: dict[str, str] = {}
    found: dict[str, Path] = {}
    for folder, file in files:
        found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
    others = {path: (file, changes.get(path, {})) for path, file in found.items()}
    for path, file in found.items():
        try:
            recipes[path] = read_recipe(file, path, changes.get(path, {}), others)
        except RecipeError as error:
            problems[path] = str(error)
    for path in changes.keys() - recipes.keys() - problems.keys():
        problems[path] = f'The configuration changes the recipe "{path}", which does not exist.'
    return Book(recipes, problems)


def read_recipe(
    file: Path,
    path: str,
    changes: Mapping[str, Any],
    others: Mapping[str, tuple[Path, Mapping[str, Any]]] | None = None,
) -> Recipe:
    """Read and check one recipe; raises `RecipeError`.

    `changes` are the site's; `others`: by path, the files and changes of the recipes that this one may extend.
    """
    tree = _yaml(file)
    base, below = _base(file, path, tree, others or {})
    own_layer = Layer(tree, file)
    layers = Layers((Layer(changes, recipe=path), own_layer, *below), own_layer)
    try:
        own = _plain(tree, iter(range(MOST_VALUES)))
        merged = _merged(_merged(base, own) if base else own, changes)
    except (ValueError, RecursionError):
        raise RecipeError(f"{file}:1: it holds more than {MOST_VALUES} values, or itself.") from None
    check_texts(layers, merged)
    try:
        content = msgspec.convert(merged, RecipeFile)
    except msgspec.ValidationError as error:
        raise located(layers, merged, error) from error
    category, _, stem = path.rpartition("/")
    if content.category != category:
        raise layers.error(["category"], f"it says {content.category!r}, but lies in {category!r}")
    for keys, what in problems(content):
        raise layers.error(keys, what)
    definition = _text(file, tree, "container_def", content.container_def) if content.container_def else None
    files = {name: _text(file, tree, "files", name) for name in content.files}
    return Recipe(path=path or stem, file=file, content=content, definition=definition, files=files)


def _base(
    file: Path, path: str, tree: CommentedMap, others: Mapping[str, tuple[Path, Mapping[str, Any]]]
) -> tuple[dict[str, Any], tuple[Layer, ...]]:
    """Return the recipe that this one `extends`, and what that is made of; takes the key out of the tree.

    Raises `RecipeError`.

    It is another one of the same category, the site's where it has one, with the site's changes of its own; it extends
    none itself.
    """
    if "extends" not in tree:
        return {}, ()
    line = line_of(tree, ["extends"])
    stem = tree.pop("extends")
    beside, changes = others.get(f"{path.rpartition('/')[0]}/{stem}", (file, {}))
    if beside == file and re.fullmatch(r"[\w.-]+", str(stem)):
        beside = file.with_name(f"{stem}.yaml")
    if beside == file or not beside.is_file():
        raise RecipeError(f"{file}:{line}: extends: it must be the stem of another recipe in the same folder.")
    base = _yaml(beside)
    if "extends" in base:
        raise RecipeError(f"{file}:{line}: extends: {stem} extends another recipe itself.")
    try:
        plain = _plain(base, iter(range(MOST_VALUES)))
    except (ValueError, RecursionError):
        raise RecipeError(f"{beside}:1: it holds more than {MOST_VALUES} values, or itself.") from None
    of_base = f"{path.rpartition('/')[0]}/{stem}"
    return _merged(plain, changes), (Layer(changes, recipe=of_base), Layer(base, beside))


def _files(folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for folder in folders:
        for file in sorted(map(Path, _below(str(folder), depth=2))):
            if file.suffix == ".yaml" and file.parent != folder:
                yield folder, file


def _stamps(folders: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Tell when recipes, and the files that may travel with them, last changed."""
    for folder in folders:
        for file in sorted(_below(str(folder), depth=2)):
            # A link to nowhere is the affair of the recipe that needs it.
            with contextlib.suppress(OSError):
                found = Path(file).stat()
                yield file, found.st_mtime_ns, found.st_size


def _below(folder: str, depth: int) -> Iterator[str]:
    """List what lies in a folder, so many levels deep (a tenth of the time of pathlib's glob)."""
    with contextlib.suppress(NotADirectoryError, FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path
            if depth > 1 and entry.is_dir():
                yield from _below(entry.path, depth - 1)


def _yaml(file: Path) -> CommentedMap:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise RecipeError(f"{file}: larger than {LARGEST_FILE} bytes.")
        with open_regular(file) as opened:
            content = opened.read(LARGEST_FILE)
        tree = YAML(typ="rt").load(content.decode())
    except OSError as error:
        if is_own_trouble(error):
            raise
        raise RecipeError(f"{file}: can't be read: {error}.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{file}:{line}: not UTF-8: {error.reason}.") from error
    except ReaderError as error:
        line = content.decode()[: error.position].count("\n") + 1
        raise RecipeError(f"{file}:{line}: not valid YAML: {error.reason}.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{file}:{line}: not valid YAML: {error.problem}.") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file}: not valid YAML: {error}.") from error
    if not isinstance(tree, CommentedMap):
        raise RecipeError(f"{file}:1: a recipe is a mapping of keys to values.")
    return tree


def _plain(node: Any, budget: Iterator[int]) -> Any:
    """Take ruamel's types off, so that values compare and convert as what they are.

    `budget` bounds what aliases of aliases can grow to; raises `ValueError`.
    """
    if next(budget, None) is None:
        raise ValueError
    if isinstance(node, CommentedMap):
        return {str(key): _plain(value, budget) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(item, budget) for item in node]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _merged(base: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    if "image" in changes:
        result.pop("container_def", None)
    elif "container_def" in changes:
        result.pop("image", None)
    return result


def _text(file: Path, tree: CommentedMap, key: str, name: str) -> str:
    """Read a file that travels with a recipe: from its own folder, or from the one that all recipes lie in."""
    beside = file.parent / name
    if beside.resolve().parent not in (file.parent.resolve(), file.parents[1].resolve()):
        raise RecipeError(f"{file}:{line_of(tree, [key])}: {key}: {name!r} must lie in the recipes' folder.")
    try:
        with TextIOWrapper(open_regular(beside), encoding="utf-8") as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError) as error:
        if is_own_trouble(error):
            raise
        raise RecipeError(f"{file}:{line_of(tree, [key])}: {key}: {beside} can't be read: {error}.") from error
