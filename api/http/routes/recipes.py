"""/api/v1/recipes."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.http.openapi import Described, Operation, list_of, object_of, ref, text, titled
from api.http.recipes import Recipes
from api.http.wire import RecipeResponse, recipe_response


def recipe_routes(recipes: Recipes) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    @get("/api/v1/recipes")
    async def list_recipes() -> list[RecipeResponse]:
        book = await recipes.book()
        return [recipe_response(recipe) for _, recipe in sorted(book.recipes.items())]

    @get("/api/v1/recipes/{recipe_name:path}")
    async def get_recipe(recipe_name: FromPath[str]) -> RecipeResponse:
        # A path parameter begins with a slash, and takes what follows: both forms of category/stem come here.
        return recipe_response(await recipes.find(recipe_name.removeprefix("/"), unknown="Recipe not found"))

    return [list_recipes, get_recipe]


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/recipes",
            name="list_recipes",
            description="List all available recipes.",
            answer=list_of("RecipeResponse", "Response List Recipes Api V1 Recipes Get"),
        ),
        Operation(
            method="get",
            path="/api/v1/recipes/{recipe_name}",
            name="get_recipe",
            description="Get details of a specific recipe.",
            answer=ref("RecipeResponse"),
        ),
    ),
    schemas={
        "RecipeResponse": object_of(
            "RecipeResponse",
            {name: text(titled(name)) for name in ("name", "category", "description", "version", "path")},
            ["name", "category", "description", "version", "path"],
        ),
    },
)
"""For the documents."""
