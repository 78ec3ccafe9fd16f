"""Kinds of rules for lint-imports that name what is allowed: whatever is new is refused until somebody allows it.

`only`: these modules import nothing but what is listed, some of them more besides. `outside`: each package from outside
is imported by nothing but the modules that are listed for it. A name stands for a module and all that lies in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

LATER = frozenset({"tomllib", "annotationlib", "compression"})
"""What Python's standard library has got since 3.9."""

WORDS = {
    "stdlib": frozenset(sys.stdlib_module_names),
    "stdlib-3.9": frozenset(sys.stdlib_module_names) - LATER,
}


class _AllowListContract(Contract):
    """What both kinds share: a check that finds the imports that are not allowed, one line for each."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find what is not allowed."""
        found = list(self.refused(graph))
        return ContractCheck(kept=not found, metadata={"refused": found})

    def render_broken_contract(self, check: Any) -> None:
        """Print what was found."""
        for line in check.metadata["refused"]:
            output.print_error(f"- {line}", bold=False)
        output.new_line()

    def refused(self, graph: ImportGraph) -> Iterator[str]:
        """Say what is not allowed, and which name in the rule is no module."""
        raise NotImplementedError


class OnlyContract(_AllowListContract):
    """`importers` import nothing but what is `allowed`: modules, packages, `stdlib`, `stdlib-3.9`, or all `outside`.

    `besides`: what some of them may import as well, `module: module, module, …`.
    """

    importers = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField())
    besides = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def refused(self, graph: ImportGraph) -> Iterator[str]:
        """Say what is imported and not allowed."""
        allowed: list[str] = self.allowed
        standard = frozenset[str]().union(*(WORDS[name] for name in allowed if name in WORDS))
        besides = _rules(self.besides)
        named = [*self.importers, *allowed, *besides, *(name for names in besides.values() for name in names)]
        yield from _missing(graph, [name for name in named if name not in {*WORDS, "outside"}])
        for importer, imported in _imports(graph):
            if not _lies_in(importer, self.importers) or _lies_in(imported, allowed) or imported in standard:
                continue
            if any(_lies_in(importer, [who]) and _lies_in(imported, names) for who, names in besides.items()):
                continue
            if not ("outside" in allowed and graph.is_module_squashed(imported)):
                yield f"{importer} imports {imported}{_lines(graph, importer, imported)}"


class OutsideContract(_AllowListContract):
    """`importers`: for each package from outside, `package: module, module, …`.

    Python's own modules may be imported by all, but where they are listed here.
    """

    importers = fields.ListField(subfield=fields.StringField())

    def refused(self, graph: ImportGraph) -> Iterator[str]:
        """Say which package from outside is imported by whom it is not allowed to."""
        rules = _rules(self.importers)
        yield from _missing(graph, [name for modules in rules.values() for name in modules])
        for importer, imported in _imports(graph):
            if not graph.is_module_squashed(imported) or (imported in WORDS["stdlib"] and imported not in rules):
                continue
            if not _lies_in(importer, rules.get(imported, ())):
                yield f"{importer} imports {imported}{_lines(graph, importer, imported)}"


def _rules(lines: Iterable[str]) -> dict[str, list[str]]:
    """Read lines of `name: name, name, …`."""
    parts = (line.partition(":") for line in lines)
    return {name: [one.strip() for one in names.split(",")] for name, _, names in parts}


def _imports(graph: ImportGraph) -> Iterator[tuple[str, str]]:
    for importer in sorted(graph.modules):
        if not graph.is_module_squashed(importer):
            yield from ((importer, imported) for imported in sorted(graph.find_modules_directly_imported_by(importer)))


def _lies_in(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _missing(graph: ImportGraph, names: Iterable[str]) -> Iterator[str]:
    """Find names of modules of ours that are gone: what was allowed to them must not pass on to who comes next."""
    roots = {name.partition(".")[0] for name in graph.modules if not graph.is_module_squashed(name)}
    for name in names:
        if name.partition(".")[0] in roots and name not in graph.modules:
            yield f"{name} is named in the rule, and there is no such module"


def _lines(graph: ImportGraph, importer: str, imported: str) -> str:
    found = graph.get_import_details(importer=importer, imported=imported)
    numbers = sorted({detail["line_number"] for detail in found})
    return f" (line {', '.join(map(str, numbers))})" if numbers else ""
