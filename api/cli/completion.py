"""`ai-factory completion`, and `ai-factory complete`, which its scripts ask at every press of the key.

The candidates come from the grammar itself, so that they are never behind it; names come from the API.
"""

from __future__ import annotations

import contextlib
from argparse import SUPPRESS, Action, _SubParsersAction
from collections.abc import Callable, Sequence

from api.cli.arguments import build
from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.parser import Parser
from api.cli.recipes.list import book_of
from api.cli.rest.client import connect
from api.contract.exits import Exit
from api.contract.recipes.keys import settable

NAMES_SECONDS = 1.0
"""So long the API may take to name services."""
FILES = ":files"
"""Stands for: whatever files there are."""

Names = Callable[[str], Sequence[str]]
"""Returns what there is for a metavar: ID, RECIPE or KEY=VALUE."""

_SCRIPTS = {
    "bash": """\
_ai_factory() {
  local line cur="${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=()
  while IFS= read -r line; do
    if [ "$line" = :files ]; then
      compopt -o filenames 2>/dev/null
      while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur")
    else
      COMPREPLY+=("${line%%$'\\t'*}")
    fi
  done < <(ai-factory complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _ai_factory ai-factory
""",
    "zsh": """\
#compdef ai-factory
_ai_factory() {
  local line
  local -a found
  for line in "${(@f)$(ai-factory complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    if [[ "$line" == :files ]]; then
      _files
    elif [[ -n "$line" ]]; then
      found+=("${${line//:/\\\\:}/$'\\t'/:}")
    fi
  done
  (( $#found )) && _describe 'ai-factory' found
}
if [ "$funcstack[1]" = "_ai_factory" ]; then _ai_factory "$@"; else compdef _ai_factory ai-factory; fi
""",
    "fish": """\
function __ai_factory_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (ai-factory complete -- $words[2..-1] 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c ai-factory -f -a '(__ai_factory_complete)'
""",
}


def script(context: Context) -> Exit:
    """Print what a shell reads to complete this program's command lines."""
    context.console.text(_SCRIPTS[context.arguments.shell])
    return Exit.OK


def complete(context: Context) -> Exit:
    """Print the candidates for the last of some words, each with what it is, after a tab."""
    words = context.arguments.words
    words = words[1:] if words[:1] == ["--"] else words
    for candidate, about in candidates(build(), words or [""], lambda metavar: _names(context, metavar, words)):
        context.console.text(f"{candidate}\t{about}" if about else candidate)
    return Exit.OK


def candidates(parser: Parser, words: Sequence[str], names: Names) -> list[tuple[str, str]]:
    """Return what the last of the words may become, each with a few words about it."""
    *before, current = words if words[-1] != "=" else [*words[:-1], ""]
    before = [word for word in before if word != "="]  # which bash makes a word of
    number, waiting = 0, None
    is_plain = False
    for word in before:
        if waiting is not None:
            waiting = None if not _takes_many(waiting) or word.startswith("-") else waiting
            if not word.startswith("-"):
                continue
        if word == "--" and not is_plain:
            is_plain = True
        elif word.startswith("-") and len(word) > 1 and not is_plain:
            waiting = None if "=" in word else _option(parser, word)
        elif (inner := _inner(parser, word)) is not None:
            parser, number = inner, 0
        else:
            number += 1
    flag, equals, begun = current.partition("=")
    if current.startswith("--") and equals and (option := _option(parser, flag)) is not None:
        return [(f"{flag}={value}", about) for value, about in _values(parser, option, begun, names) if value != FILES]
    if current.startswith("-") and not is_plain:
        return _flags(parser, current)
    found = _values(parser, waiting, current, names) if waiting is not None else []
    if waiting is None or _takes_many(waiting):
        found += _positionals(parser, number, current, names)
    return found


def _positionals(parser: Parser, number: int, current: str, names: Names) -> list[tuple[str, str]]:
    places = [action for action in parser._actions if not action.option_strings]
    if not places:
        return []
    action = places[min(number, len(places) - 1)]
    if number >= len(places) and action.nargs not in ("*", "+"):
        return []
    return _values(parser, action, current, names)


def _values(parser: Parser, action: Action, current: str, names: Names) -> list[tuple[str, str]]:
    """Return what an argument or a flag may be."""
    if isinstance(action, _SubParsersAction):
        about = {choice.dest: choice.help or "" for choice in action._choices_actions}
        return [(name, text) for name, text in about.items() if name.startswith(current)]
    if action.choices is not None:
        choices = parser.get_default("formats") if action.dest == "output" else action.choices
        return [(str(choice), "") for choice in choices or action.choices if str(choice).startswith(current)]
    if action.metavar == "FILE":
        return [(FILES, "")]
    if action.metavar in ("ID", "RECIPE", "KEY=VALUE"):
        return [(name, "") for name in names(action.metavar) if name.startswith(current)]
    return []


def _flags(parser: Parser, current: str) -> list[tuple[str, str]]:
    """Return the flags, those of more than a letter, that begin like this."""
    return [
        (
            flag,
            (action.help or "").replace("%(default)g", str(action.default)).replace("%(default)s", str(action.default)),
        )
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag.startswith(current) and action.help != SUPPRESS
    ]


def _option(parser: Parser, word: str) -> Action | None:
    """Return the action of a flag that takes a value; `None` for others."""
    action = parser._option_string_actions.get(word)
    return action if action is not None and action.nargs != 0 else None


def _takes_many(action: Action) -> bool:
    return action.nargs in ("*", "+")


def _inner(parser: Parser, word: str) -> Parser | None:
    """Return the parser of a subcommand."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            found: Parser | None = action.choices.get(word)
            return found
    return None


def _names(context: Context, metavar: str, words: Sequence[str]) -> list[str]:
    """Ask the API, quickly; nothing where it does not answer. The keys of a config are those of the recipe."""
    if metavar == "KEY=VALUE":
        book = book_of(context)
        recipe = next(filter(None, map(book.find, words)), None)
        return [] if recipe is None else [f"{key}=" for key in settable(recipe.content)]
    with contextlib.suppress(CliError), connect(context, NAMES_SECONDS) as client:
        if metavar == "RECIPE":
            return sorted(str(recipe["path"]) for recipe in client.recipes())
        return sorted({str(service["name"]) for service in client.services()})
    return []
