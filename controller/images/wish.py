"""Which image people mean: that of a recipe, a reference, or a definition file."""

from __future__ import annotations

import re
from pathlib import Path

from api.contract.configuration import expanded
from api.contract.exits import Exit, ExitError
from api.contract.job.parameters import Image
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from controller.wrapper.cache import is_cached

LARGEST_DEFINITION = 1_000_000
_DEFINITION = re.compile(r"^\s*bootstrap\s*:", re.IGNORECASE | re.MULTILINE)


class WishError(ExitError):
    """It can't be made; the message says what is wrong, and what to type."""


class UnknownRecipeError(WishError):
    """There is no such recipe."""

    code = Exit.NOT_FOUND


def image_of(settings: Settings, what: str) -> Image:
    """Return the image; raises `WishError`."""
    if "://" in what:
        return reference(what)
    if what.endswith(".def"):
        return definition(expanded(what))
    return _of_recipe(settings, what)


def reference(text: str) -> Image:
    """Check a reference for what Apptainer would refuse only after a while."""
    if not re.fullmatch(r"[a-z][a-z0-9+-]*://[^\s\x00-\x1f]+", text):
        raise WishError(f"{text!r} is no reference to an image: write it like docker://ghcr.io/owner/name:tag")
    name, at, digest = text.partition("@")
    if at and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise WishError(f"{text}: a digest is sha256: and 64 hexadecimal digits.")
    if at and ":" in name.partition("://")[2].rpartition("/")[2]:
        raise WishError(
            f"{text}: Apptainer takes a tag or a digest, not both. Leave the tag out: it says nothing more."
        )
    return Image(source=text)


def definition(file: Path) -> Image:
    """Read a definition file, as a recipe's `container_def` is read."""
    try:
        if file.stat().st_size > LARGEST_DEFINITION:
            raise WishError(f"{file} is larger than {LARGEST_DEFINITION} bytes: is it a definition file?")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise WishError(f"{file} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise WishError(f"{file} is not UTF-8: {error.reason}.") from error
    if not _DEFINITION.search(text):
        raise WishError(f"{file} is no definition file of Apptainer's: it has no line `Bootstrap: …`.")
    return Image(definition=text)


def _of_recipe(settings: Settings, name: str) -> Image:
    book = Library(settings.recipes, settings.recipe).book()
    recipe = book.find(name)
    if recipe is None:
        problem = book.problem(name)
        if problem is not None:
            raise WishError(f"The recipe {name} can't be used: {problem}")
        raise UnknownRecipeError(
            f"There is no recipe {name}. See: ai-factory recipes list. A reference begins with docker:// or oras://, "
            "a definition file ends in .def."
        )
    if recipe.definition is None and not recipe.content.image:
        raise WishError(f"The recipe {recipe.path} has no image: its command runs on the node itself.")
    if recipe.definition is not None:
        return Image(definition=recipe.definition)
    image = Image(source=recipe.content.image)
    if not is_cached(image):
        raise WishError(f"The recipe {recipe.path} uses {image.source} where it lies; there is nothing to make.")
    return reference(str(image.source))
