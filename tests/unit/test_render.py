"""`recipes render`: the very command, files and options with which a service's job would be submitted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from api.contract.configuration import load
from api.contract.job.parameters import Image
from controller.commands.render import TOKEN, render
from controller.rundir import SharedRunDirs
from controller.wrapper.cache import key


def rendered(folder: Path, **settings: Any) -> tuple[list[str], str]:
    """Return the words of the sbatch command, and the whole text."""
    recipe = folder / "recipes" / "simple" / "tool.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    head = "name: tool\ncategory: simple\ndescription: For tests.\nversion: 1.0.0\n"
    recipe.write_text(f"{head}image: {settings.pop('image', 'docker://tool')}\nprogram: [tool]\n")
    given = {"run_dir": str(folder / "run"), "recipes": str(recipe.parents[1]), **settings}
    text = render(load(given, environ={"HOME": str(folder)}), "simple/tool", {})
    found = re.search(r"^# --- sbatch\n(.*?)\n\n# ---", text, re.DOTALL)
    assert found is not None
    return shlex.split(found[1].replace("\\\n", " ")), text


async def test_it_names_the_files_that_a_job_is_given(tmp_path: Path) -> None:
    words, text = rendered(tmp_path)
    made = await SharedRunDirs(tmp_path / "run", "INSTALLATION", "").prepare("SERVICE", TOKEN, b"{}")
    for file in (made.launch_script, made.wrapper, made.path):
        assert Path(file).exists()
        assert file in words
    title = f"# --- {Path(made.launch_script).name} (the same for every job)\n"
    assert title + Path(made.launch_script).read_text().rstrip() in text


@pytest.mark.parametrize(
    ("image", "build", "made", "dependency"),
    [
        ("docker://tool", "job", False, "afterany:IMAGE-JOB,singleton"),
        ("docker://tool", "job", True, "singleton"),
        ("docker://tool", "host", False, "singleton"),
        ("/images/tool.sif", "job", False, "singleton"),
    ],
)
def test_it_waits_for_the_job_that_makes_its_image(
    tmp_path: Path, image: str, build: str, made: bool, dependency: str
) -> None:
    if made:
        (tmp_path / "run" / "images").mkdir(parents=True)
        (tmp_path / "run" / "images" / f"{key(Image(source=image))}.sif").touch()
    words, _ = rendered(tmp_path, image=image, **{"images.build": build})
    assert [word for word in words if word.startswith("--dependency=")] == [f"--dependency={dependency}"]
