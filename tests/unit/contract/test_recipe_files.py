"""Recipes as they are read: YAML 1.2, and messages that name file, line and key."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.contract.recipes.book import MOST_VALUES, Library, Recipe, read_recipe
from api.contract.recipes.checks import placeholders
from api.contract.recipes.located import RecipeError

Read = Callable[..., Recipe]
Write = Callable[..., Path]


def trouble(write: Write, body: str | bytes, **options: Any) -> str:
    """Return what is wrong with a recipe, without its path."""
    file = write(body, **options)
    with pytest.raises(RecipeError) as caught:
        read_recipe(file, "test/demo", {})
    text = str(caught.value)
    assert text.startswith(f"{file}:")
    assert "\n" not in text
    return text.removeprefix(f"{file}:")


def test_a_parameter_may_be_called_like_what_only_the_job_knows(read: Read) -> None:
    body = "parameters: {socket: {type: string}}\ncommand: ['{socket}', '{port}']\nports: [1]\naccess: direct\n"
    assert read(body).content.access == "direct"


@pytest.mark.parametrize("name", ["demo.yaml", "beside.txt"])
def test_a_pipe_in_place_of_a_recipe_holds_nothing_up(write: Write, name: str) -> None:
    file = write("files: [beside.txt]\n")
    pipe = file.with_name(name)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    with pytest.raises(RecipeError, match="no regular file"):
        read_recipe(file, "test/demo", {})


# What a file may say


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("update: {strategy: sometimes}\n", "5: update.strategy: Invalid enum value"),
        ("update: {surge: -1}\n", "5: update.surge: Expected"),
        ("update: {max_unavailable: 1.5}\n", "5: update.max_unavailable: Expected"),
        ("update: {surge: 0, max_unavailable: 0}\n", "5: update: surge and max_unavailable are 0: "),
        ("resources:\n  cpus: 4\n", "6: resources.cpus: there is no such key."),
        ("resources:\n  cpu: [4]\n", "6: resources.cpu: Expected"),
        ("colour: red\n", "5: colour: there is no such key."),
        ("command: [a, [b, {c: 1}]]\n", "5: command.1.1: Expected"),
        ("parameters:\n  size:\n    type: whole\n", "7: parameters.size.type: Invalid enum value 'whole'."),
        (
            "parameters:\n  fine: {type: string}\n  size:\n    kind: x\n",
            "8: parameters.size.kind: there is no such key.",
        ),
        ("parameters:\n  size:\n    default: x\n", "6: parameters.size.type: it is missing."),
        ("environment:\n  A: 1\n  B: [1]\n", "7: environment.B: Expected"),
        ("environment_from:\n  A: 1\n", "6: environment_from.A: Expected"),
        ("replicas: -1\n", "5: replicas: Expected"),
        ("health_check:\n  interval: 0\nports: [1]\n", "6: health_check.interval: Expected"),
        ("health_check:\n  startup_timeout: .inf\nports: [1]\n", "6: health_check.startup_timeout: Expected"),
        ("health_check:\n  startup_timeout: .nan\nports: [1]\n", "6: health_check.startup_timeout: Expected"),
        ('health_check:\n  endpoint: "/a\\n"\nports: [1]\n', "6: health_check.endpoint: Expected"),
        ("health_check:\n  endpoint: http://x/\nports: [1]\n", "6: health_check.endpoint: Expected"),
        ("health_check: {kind: ping}\nports: [1]\n", "5: health_check.kind: Invalid enum value"),
        ("access: window\n", "5: access: Invalid enum value"),
        ("network: bridge\n", "5: network: Invalid enum value"),
        (
            "command: ['{port}']\nports: [1]\naccess: direct\nnetwork: private\n",
            "8: network: nobody reaches a port in there but a door: leave it out, or access.",
        ),
        (
            "command: [x]\nports: [1]\n",
            "5: command: nothing says where to listen: give {socket}, or {port} to what can't listen on Unix sockets.",
        ),
        (
            "command: ['{socket}']\nports: [1]\nenvironment: {A: ':{port}'}\n",
            "5: command: behind a door an engine listens on {socket} or on {port}: give one of them.",
        ),
        (
            "command: ['{socket}']\nports: [1]\nhealth_check: {command: ['{port}']}\n",
            "5: command: behind a door an engine listens on {socket} or on {port}: give one of them.",
        ),
        (
            "command: ['{socket}']\nports: [1]\naccess: direct\n",
            "5: command: {socket} is behind a door: give {port}, or leave access out.",
        ),
        (
            "ports: [1]\nhealth_check:\n  kind: tcp\n  endpoint: /x\n",
            "8: health_check.endpoint: a check of kind tcp asks for none; leave it out, or say kind: http.",
        ),
        (
            "ports: [1]\nhealth_check:\n  command: [x]\n  endpoint: /x\n",
            "8: health_check.endpoint: a check of kind command asks for none",
        ),
        (
            "ports: [1]\nhealth_check:\n  kind: http\n  command: [x]\n",
            "8: health_check.command: a check of kind http runs none; leave it out, or say kind: command.",
        ),
        ("ports: [1]\nhealth_check:\n  kind: command\n", "6: health_check.command: a check of kind command needs one."),
        (
            "ports: [1]\nhealth_check:\n  retries: 3\n  command: ['{size}']\n",
            "8: health_check.command: {size} is not a parameter of this recipe.",
        ),
        ('ports: [1]\nhealth_check:\n  command: ["a\\0b"]\n', "7: health_check.command.0: it has a NUL"),
        (
            "ports: [1]\nengine: vllm\nmodel: m\nhealth_check:\n  kind: tcp\n",
            "9: health_check.kind: an engine of kind vllm is asked over http.",
        ),
        ("stop_grace: 4000\n", "5: stop_grace: Expected"),
        ("restart: {max_failures: 0}\n", "5: restart.max_failures: Expected"),
        ("health_check:\n  retries: 3\n", "5: health_check: something must listen for it: give ports."),
        ("engine: vllm\n", "5: engine: an engine of kind vllm needs ports and model."),
        ("image: x.sif\ncontainer_def: x.def\n", "6: container_def: give either image or container_def, not both."),
        ('command: ["{size}"]\n', "5: command: {size} is not a parameter of this recipe."),
        ('environment:\n  A: "{size}"\n', "5: environment: {size} is not a parameter of this recipe."),
        ('model: "{port}"\n', "5: model: {port} is not a parameter of this recipe."),
        (
            "parameters:\n  a:\n    type: string\n    pattern: '('\n",
            "8: parameters.a.pattern: not a regular expression",
        ),
        (
            "parameters:\n  a:\n    type: list\n    variable: A\n",
            "8: parameters.a.variable: a variable can't hold a list.",
        ),
        ("container_def: none.def\n", "5: container_def: "),
        ("files: [none.py]\n", "5: files: "),
        ("files: [../../up.py]\n", "5: files: '../../up.py' must lie in the recipes' folder."),
        ("container_def: /etc/passwd\n", "5: container_def: '/etc/passwd' must lie in the recipes' folder."),
        ('files: ["a\\0b"]\n', "5: files.0: it has a NUL"),
        ('image: "\\ud800"\n', "5: image: it has a NUL or half a surrogate pair in it."),
        ('environment:\n  "A\\0": 1\n', "6: environment.A\\x00: it has a NUL"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_key(write: Write, body: str, expected: str) -> None:
    assert trouble(write, body).startswith(expected)


def test_a_missing_key_is_named(write: Write) -> None:
    assert trouble(write, "", program="") == "1: program: it is missing."
    assert trouble(write, "", program="program: []\n").startswith("5: program: Expected")
    assert trouble(write, "", program='program: ["{size}"]\n').startswith("1: command: {size} is not a parameter")


@pytest.mark.parametrize(
    ("line", "key"), [("name: a b", "name"), ('name: "a\\n"', "name"), ("category: other", "category")]
)
def test_names_are_words_and_the_category_is_the_folder(write: Write, line: str, key: str) -> None:
    head = {"name": "demo", "category": "test", "description": "d", "version": "1"}
    head.pop(key)
    text = line + "\n" + "".join(f'{k}: "{v}"\n' for k, v in head.items())
    assert trouble(write, "", head=text).startswith(f"1: {key}: ")


def test_a_link_out_of_the_folder_does_not_travel(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    file = write("files: [link]\n")
    (file.parent / "link").symlink_to(tmp_path / "secret")
    assert trouble(write, "files: [link]\n").startswith("5: files: 'link' must lie in the recipes' folder")


def test_texts_beside_it_travel_with_it(read: Read, write: Write) -> None:
    beside = write().parent
    (beside / "demo.def").write_text("Bootstrap: scratch\n")
    (beside / "engine.py").write_text("print('é')\n", encoding="utf-8")
    recipe = read("container_def: demo.def\nfiles: [engine.py]\n")
    assert recipe.definition == "Bootstrap: scratch\n"
    assert recipe.files == {"engine.py": "print('é')\n"}


def test_texts_may_lie_where_all_recipes_lie(read: Read, write: Write) -> None:
    (write().parents[1] / "shared.def").write_text("Bootstrap: scratch\n")
    assert read("container_def: ../shared.def\n").definition == "Bootstrap: scratch\n"


def test_what_travels_is_text(write: Write) -> None:
    (write().parent / "blob").write_bytes(b"\xff\x00")
    assert trouble(write, "files: [blob]\n").startswith("5: files: ")


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:00:00", "12:00:00"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("012", 12),
        ("0o17", 15),
        ("1e3", 1000.0),
        ("~x", "~x"),
        ("true", True),
        ("&anchor true", True),
        ('"no"', "no"),
        ("'1'", "1"),
    ],
)
def test_yaml_is_of_version_1_2(read: Read, text: str, value: object) -> None:
    found = read(f"environment: {{A: {text}}}\n").content.environment["A"]
    assert (found, type(found)) == (value, type(value))


def test_a_key_such_as_no_is_a_text(read: Read) -> None:
    assert list(read("environment: {no: 1, on: 2, y: 3}\n").content.environment) == ["no", "on", "y"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", "1: a recipe is a mapping of keys to values.", id="empty"),
        pytest.param(b"# nothing\n", "1: a recipe is a mapping", id="only a remark"),
        pytest.param(b"null\n", "1: a recipe is a mapping", id="null"),
        pytest.param(b"- a\n", "1: a recipe is a mapping", id="a list"),
        pytest.param(b"text", "1: a recipe is a mapping", id="a text"),
        pytest.param(b"name: a\nname: b\n", "2: not valid YAML: found duplicate key", id="a key twice"),
        pytest.param(b"a: {b: 1,\n  b: 2}\n", "2: not valid YAML: found duplicate key", id="an inner key twice"),
        pytest.param(b"a: [1\nb: 2\n", "2: not valid YAML: ", id="never closed"),
        pytest.param(b"a:\n\tb: 1\n", "2: not valid YAML: found character '\\t'", id="a tab"),
        pytest.param(b"a: 1\n---\nb: 2\n", "2: not valid YAML: but found another document", id="two documents"),
        pytest.param(b"a: *b\n", "1: not valid YAML: found undefined alias", id="no such anchor"),
        pytest.param(b"a: 1\nb: \x00\n", "2: not valid YAML: special characters", id="NUL"),
        pytest.param(b"a: 1\nb: \xff\n", "2: not UTF-8: invalid start byte.", id="latin-1"),
        pytest.param(b"\xff\xfea\x00", "1: not UTF-8", id="UTF-16"),
        pytest.param(b"a: " + b"[" * 1_000, " not valid YAML: maximum recursion depth", id="deep"),
        pytest.param(b"%YAML 9.9\n---\na: 1\n", "", id="a version of its own"),
        pytest.param(b"#" * 1_000_001, " larger than 1000000 bytes.", id="large"),
    ],
)
def test_what_is_not_yaml(write: Write, body: bytes, expected: str) -> None:
    assert trouble(write, body).startswith(expected)


def test_a_mark_of_byte_order_does_no_harm(read: Read) -> None:
    text = b"\xef\xbb\xbfname: demo\ncategory: test\ndescription: d\nversion: '1'\nprogram: [run]\n"
    assert read(text).name == "demo"


@pytest.mark.parametrize("value", ["!!python/object/apply:os.system [ls]", "!strange x", "!!binary aGk=", "2024-01-01"])
def test_no_types_but_plain_ones(write: Write, value: str) -> None:
    assert trouble(write, f"image: {value}\n").startswith("5: image: Expected")


def test_aliases_may_not_blow_up(write: Write) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    text = trouble(write, ("\n".join(lines) + "\n").encode())
    assert text == f"1: it holds more than {MOST_VALUES} values, or itself."


def test_an_alias_of_itself_ends_too(write: Write) -> None:
    for body in (b"a: &a\n  b: *a\n", b"a: &a [*a]\n", b"&a a: *a\n", b"&a\na: *a\n"):
        assert trouble(write, body)


def test_aliases_and_merges_are_fine(read: Read) -> None:
    body = "environment: &e {A: one}\nresources:\n  <<: {cpu: 3}\nenvironment_from: {B: /x}\nbinds: [&b x, *b]\n"
    content = read(body).content
    assert (content.resources.cpu, content.binds) == (3, ["x", "x"])


def test_a_folder_called_like_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a" / "b.yaml").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"b\.yaml: can't be read"):
        read_recipe(tmp_path / "a" / "b.yaml", "a/b", {})


# The site's changes


def test_a_site_changes_key_by_key(read: Read) -> None:
    body = "resources: {cpu: 1, memory: 1G}\nimage: docker://a\nbinds: [a]\n"
    recipe = read(body, {"resources": {"memory": "8G"}, "binds": ["b"], "description": "Ours."})
    content = recipe.content
    assert (content.resources.cpu, content.resources.memory) == (1, "8G")
    assert (content.binds, content.description, content.image) == (["b"], "Ours.", "docker://a")


def test_a_site_may_bring_an_image_where_the_recipe_builds_one_and_the_reverse(read: Read, write: Write) -> None:
    (write().parent / "demo.def").write_text("x")
    assert read("container_def: demo.def\n", {"image": "/x.sif"}).definition is None
    assert read("image: docker://a\n", {"container_def": "demo.def"}).content.image is None


def test_a_sites_mistake_is_named_too(write: Write) -> None:
    file = write("resources: {cpu: 1}\n")
    with pytest.raises(RecipeError, match=r'the configuration, \[recipe\."test/demo"\]: resources\.memory: Expected'):
        read_recipe(file, "test/demo", {"resources": {"memory": [1]}})


# The book


def names(book: Any) -> list[str]:
    return sorted(book.recipes)


def test_recipes_are_found_by_path_stem_and_name(write: Write, tmp_path: Path) -> None:
    write(path="test/other", head="name: demo\ncategory: test\ndescription: d\nversion: '1'\n")
    write(path="test/demo", head="name: first\ncategory: test\ndescription: d\nversion: '1'\n")
    book = Library([tmp_path / "recipes"], {}).book()
    found = {name: recipe.path for name in ("test/demo", "demo", "first", "other") if (recipe := book.find(name))}
    assert found == {"test/demo": "test/demo", "demo": "test/demo", "first": "test/demo", "other": "test/other"}
    assert book.find("nothing") is None
    assert book.find("") is None


def test_one_that_can_not_be_used_hides_no_other(write: Write, tmp_path: Path) -> None:
    write()
    write(b"\xff", path="test/bad")
    (tmp_path / "recipes" / "test" / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "recipes" / "test" / "folder.yaml").mkdir()
    book = Library([tmp_path / "recipes"], {}).book()
    assert names(book) == ["test/demo"]
    assert sorted(book.problems) == ["test/bad", "test/dangling", "test/folder"]
    for name in ("test/bad", "bad"):
        assert "not UTF-8" in (book.problem(name) or "")
    assert book.problem("demo") is None


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert names(Library([tmp_path / "none"], {}).book()) == []


def test_the_first_folder_wins(write: Write, tmp_path: Path) -> None:
    write()
    ours = tmp_path / "ours" / "test"
    ours.mkdir(parents=True)
    (ours / "demo.yaml").write_text("name: ours\ncategory: test\ndescription: d\nversion: '1'\nprogram: [x]\n")
    book = Library([tmp_path / "ours", tmp_path / "recipes"], {}).book()
    assert book.recipes["test/demo"].name == "ours"


def test_changes_to_a_recipe_that_is_not_there_are_a_problem(tmp_path: Path) -> None:
    book = Library([tmp_path], {"inference/nothing": {"image": "x"}}).book()
    assert "does not exist" in book.problems["inference/nothing"]


@pytest.mark.parametrize("name", ["test/demo.yaml", "test/part.py", "shared.def", "test/new.yaml"])
def test_a_change_on_disk_is_seen(write: Write, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "recipes"
    text = write("files: [part.py]\ncontainer_def: ../shared.def\n").read_text()
    for other in ("test/part.py", "shared.def"):
        (folder / other).write_text("old")
    library = Library([folder], {})
    before = library.book()
    assert library.book() is before
    (folder / name).write_text(f"{text}\n" if name.endswith("yaml") else "new")
    os.utime(folder / name, ns=(1, 1))
    assert library.book() is not before


def test_a_recipe_taken_away_is_gone(write: Write, tmp_path: Path) -> None:
    file = write()
    library = Library([tmp_path / "recipes"], {})
    assert names(library.book()) == ["test/demo"]
    file.unlink()
    assert names(library.book()) == []


def test_threads_may_read_at_the_same_time(write: Write, tmp_path: Path) -> None:
    file = write()
    library = Library([tmp_path / "recipes"], {})
    seen: list[list[str]] = []

    def look() -> None:
        seen.extend(names(library.book()) for _ in range(20))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for number, thread in enumerate(threads):
        thread.start()
        os.utime(file, ns=(number, number))
    for thread in threads:
        thread.join()
    assert all(found == ["test/demo"] for found in seen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--port={port}", ["port"]),
        ("{a}{b}", ["a", "b"]),
        ("{{a}}", []),
        ("{a.b} {0} {} {a b}", []),
        ("plain", []),
    ],
)
def test_placeholders(text: str, expected: list[str]) -> None:
    assert placeholders(text) == expected


def test_messages_have_no_python_in_them(write: Write) -> None:
    assert not re.search(r"Traceback|<class|0x[0-9a-f]{6}", trouble(write, b"a: *b\n"))


def test_a_recipe_that_extends_another(tmp_path: Path) -> None:
    folder = tmp_path / "simple"
    folder.mkdir()
    base = "name: base\ncategory: simple\ndescription: B.\nversion: 1.0.0\nprogram: [echo]\n"
    base += "resources: {cpu: 2, memory: 1G}\n"
    (folder / "base.yaml").write_text(base)
    (folder / "own.yaml").write_text("extends: base\nname: own\nresources: {cpu: 3}\n")
    changes = {"simple/base": {"resources": {"partition": "p"}}, "simple/own": {"version": "2.0.0"}}
    recipe = Library([tmp_path], changes).book().recipes["simple/own"]
    content = recipe.content
    assert (content.name, content.version, content.program) == ("own", "2.0.0", ["echo"])
    assert (content.resources.cpu, content.resources.memory, content.resources.partition) == (3, "1G", "p")


def test_a_recipe_extends_the_one_that_the_site_has_under_that_name(tmp_path: Path) -> None:
    for folder, image in (("site", "own"), ("shipped", "theirs")):
        (tmp_path / folder / "simple").mkdir(parents=True)
        base = "name: base\ncategory: simple\ndescription: B.\nversion: 1.0.0\n"
        (tmp_path / folder / "simple" / "base.yaml").write_text(f"{base}program: [{image}]\n")
    (tmp_path / "shipped" / "simple" / "alias.yaml").write_text("extends: base\nname: alias\n")
    book = Library([tmp_path / "site", tmp_path / "shipped"], {}).book()
    assert book.recipes["simple/alias"].content.program == ["own"]


@pytest.mark.parametrize("stem", ["nope", "../simple/base", "own", "1", "[base]", "second", '"a\\0"'])
def test_a_recipe_that_extends_what_it_can_not(tmp_path: Path, stem: str) -> None:
    folder = tmp_path / "simple"
    folder.mkdir()
    (folder / "base.yaml").write_text("name: base\n")
    (folder / "second.yaml").write_text("extends: base\nname: second\n")
    (folder / "own.yaml").write_text(f"name: own\nextends: {stem}\n")
    problem = Library([tmp_path], {}).book().problems["simple/own"]
    assert "own.yaml:2: extends: " in problem


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"simple/base": {"resources": {"cpus": 1}}}, 'the configuration, [recipe."simple/base"]: resources.cpus: '),
        ({"simple/own": {"resources": {"cpus": 1}}}, 'the configuration, [recipe."simple/own"]: resources.cpus: '),
        ({"simple/base": {"ports": []}}, 'the configuration, [recipe."simple/base"]: health_check: '),
        ({"simple/base": {"image": "a\0b"}}, 'the configuration, [recipe."simple/base"]: image: '),
    ],
)
def test_a_mistake_is_blamed_on_who_made_it(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    """A recipe that extends another shows the other's mistakes too: they stand where they were made."""
    folder = tmp_path / "simple"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        "name: base\ncategory: simple\ndescription: d\nversion: 1.0.0\nprogram: [x]\nports: [1]\n"
        "environment: {AT: '{port}'}\nhealth_check: {interval: 1}\n"
    )
    (folder / "own.yaml").write_text("extends: base\nname: own\n")
    found = Library([tmp_path], changes).book().problems
    assert set(found) >= {"simple/own"}
    if "ports" in str(changes):
        assert "base.yaml:8: health_check: " in found["simple/own"]
    else:
        assert all(text.startswith(where) for text in found.values()), found
