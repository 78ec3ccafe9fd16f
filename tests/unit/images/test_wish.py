"""What people may name to have it made, and what they are told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.contract.configuration import load
from api.contract.job.parameters import Image
from api.contract.settings import Settings
from controller.images.wish import UnknownRecipeError, WishError, image_of

DIGEST = "sha256:" + "0" * 64
RECIPE = """\
name: {stem}
category: try
description: A try
version: 1.0.0
program: [echo]
{image}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "recipes" / "try"
    folder.mkdir(parents=True)
    (folder / "x.def").write_text("Bootstrap: scratch\n")
    images = {
        "built": "container_def: x.def",
        "pulled": "image: docker://a/b:1",
        "lying": "image: /images/x.sif",
        "bare": "",
        "both": f"image: docker://a/b:1@{DIGEST}",
        "bad": "nonsense: 1",
    }
    for stem, image in images.items():
        (folder / f"{stem}.yaml").write_text(RECIPE.format(stem=stem, image=image))
    return load({"recipes": str(folder.parent)}, config="/dev/null", environ={"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "reference",
    ["docker://a", "docker://host:5000/a/b:tag", f"docker://host:5000/a/b@{DIGEST}", "oras://site/image:1"],
)
def test_references_are_taken_as_they_are(settings: Settings, reference: str) -> None:
    assert image_of(settings, reference) == Image(source=reference)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("docker://", "is no reference"),
        ("docker://a b", "is no reference"),
        ("-x://a", "is no reference"),
        ("docker://a@sha256:12", "64 hexadecimal digits"),
        (f"docker://h:5000/a:1@{DIGEST}", "a tag or a digest, not both"),
        ("try/both", "a tag or a digest, not both"),
        ("try/lying", "uses /images/x.sif where it lies"),
        ("try/bare", "has no image"),
        ("try/bad", "nonsense: there is no such key"),
        ("absent.def", "absent.def can't be read: No such file"),
    ],
)
def test_what_can_not_be_made_is_refused_with_the_reason(settings: Settings, what: str, said: str) -> None:
    with pytest.raises(WishError, match=said):
        image_of(settings, what)


def test_a_recipe_means_its_image(settings: Settings) -> None:
    assert image_of(settings, "try/built") == Image(definition="Bootstrap: scratch\n")
    assert image_of(settings, "pulled") == Image(source="docker://a/b:1")
    with pytest.raises(UnknownRecipeError, match="no recipe nonsense"):
        image_of(settings, "nonsense")


def test_a_definition_file_is_read_as_a_recipes_is(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "recipes/try/x.def"
    assert image_of(settings, str(file)) == image_of(settings, "try/built")
    for content, said in ((b"\xff", "not UTF-8"), (b"FROM debian\n", "no line"), (b"#" * 1_000_001, "larger than")):
        file.write_bytes(content)
        with pytest.raises(WishError, match=said):
            image_of(settings, str(file))
