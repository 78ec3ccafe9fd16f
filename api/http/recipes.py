"""The recipes as the routes need them: read off the event loop, found or refused with words for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from api.contract.recipes.book import Book, Library, Recipe
from api.web.errors import ApiError, UnavailableError

log = logging.getLogger(__name__)


class Recipes:
    """The book of this site as it is on disk now."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._reported: Mapping[str, str] = {}

    async def book(self) -> Book:
        """Return all recipes. What is wrong with some is logged, once each time it changes.

        Raises `UnavailableError` if the folders can't be read now.
        """
        try:
            book = await asyncio.to_thread(self._library.book)
        except OSError as error:
            raise UnavailableError(
                f"The recipes can't be read: {error}. Try again in a moment.", retry_after=1
            ) from error
        if book.problems != self._reported:
            self._reported = book.problems
            for text in book.problems.values():
                log.warning("recipe left out: %s", text)
        return book

    async def find(self, name: str, unknown: str) -> Recipe:
        """Return a recipe by path, stem or name; raises `ApiError`: 404 saying `unknown`, 409 if it is broken."""
        book = await self.book()
        recipe = book.find(name)
        if recipe is not None:
            return recipe
        problem = book.problem(name)
        if problem is not None:
            raise ApiError(409, f"The recipe can't be used until its file is mended: {problem}")
        raise ApiError(404, unknown)
