"""Which of sbatch's options people, recipes and sites may give, and what their values may look like: pure.

An allow-list: what is not on it is refused, whatever a newer Slurm makes of it. Left out is what would break the one
job for one attempt (arrays, dependencies, names, requeue), what the controller sets itself, and what reads files or
acts for others. Options and values: sbatch(1) of 22.05, 24.11 and 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

MAX_LENGTH: Final = 256
"""Characters of one value."""

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_NAMES = rf"{_NAME}(,{_NAME})*"
_NUMBER = r"[0-9]{1,9}"
_SIZE = rf"{_NUMBER}[KMGTkmgt]?"
_HOSTS = r"[A-Za-z0-9_][A-Za-z0-9_.,\[\]-]*"
_FEATURES = r"[A-Za-z0-9_.,:&|*()\[\]=!+-]+"
_PER_TYPE = rf"({_NAME}:)?{_NUMBER}(,({_NAME}:)?{_NUMBER})*"
_GRES = rf"{_NAME}(:{_NAME})*(:{_NUMBER}[KMGTkmgt]?)?"
_GRES_LIST = rf"{_GRES}(,{_GRES})*"
_WORDS = r"[A-Za-z_]+(,[A-Za-z_]+)*"

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "partition": _NAMES,
        "account": r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*",
        "qos": _NAME,
        "constraint": _FEATURES,
        "reservation": _NAMES,
        "gres": _GRES_LIST,
        "gpu_type": _NAME,
    }
)
"""What fields of their own in `resources` may look like, by the field's name."""

_OWN_FIELD: Mapping[str, str] = MappingProxyType(
    {
        "nodes": "nodes",
        "cpus-per-task": "cpu",
        "mem": "memory",
        "time": "time_limit",
        "time-min": "time_min",
        "partition": "partition",
        "account": "account",
        "qos": "qos",
        "constraint": "constraint",
        "reservation": "reservation",
        "gres": "gres",
    }
)

_ALLOWED: Mapping[str, str | None] = MappingProxyType(
    {
        # which nodes
        "exclude": _HOSTS,
        "nodelist": _HOSTS,
        "prefer": _FEATURES,
        "contiguous": None,
        "spread-job": None,
        "use-min-nodes": None,
        "switches": rf"{_NUMBER}(@[0-9:-]+)?",
        "exclusive": r"(user|mcs|topo)?",
        "oversubscribe": None,
        "overcommit": None,
        "licenses": rf"{_NAME}(@{_NAME})?([:=]{_NUMBER})?([,|]{_NAME}(@{_NAME})?([:=]{_NUMBER})?)*",
        # how much of them
        "mem-per-cpu": _SIZE,
        "mem-per-gpu": _SIZE,
        "tmp": _SIZE,
        "mincpus": _NUMBER,
        "cpus-per-gpu": _NUMBER,
        "gpus": _PER_TYPE,
        "gpus-per-node": _PER_TYPE,
        "gpus-per-task": _PER_TYPE,
        "gpus-per-socket": _PER_TYPE,
        "ntasks": _NUMBER,
        "ntasks-per-node": _NUMBER,
        "ntasks-per-gpu": _NUMBER,
        "ntasks-per-core": _NUMBER,
        "ntasks-per-socket": _NUMBER,
        "threads-per-core": _NUMBER,
        "cores-per-socket": _NUMBER,
        "sockets-per-node": _NUMBER,
        "core-spec": _NUMBER,
        "thread-spec": _NUMBER,
        # how they are used
        "hint": _WORDS + r"(:[a-z]+)?",
        "distribution": r"[A-Za-z*:,=0-9_]+",
        "mem-bind": r"[a-z_,:0-9x]+",
        "gpu-bind": r"[A-Za-z0-9_:,*x-]+",
        "gpu-freq": r"[A-Za-z0-9_=,]+",
        "gres-flags": r"[a-z-]+(,[a-z-]+)*",
        "cpu-freq": r"[A-Za-z0-9:,-]+",
        "network": r"[A-Za-z0-9_=:,]+",
        "propagate": r"[A-Z]+(,[A-Z]+)*",
        # rank and book-keeping
        "nice": r"-?[0-9]{0,10}",
        "delay-boot": _NUMBER,
        "wckey": r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*",
        "mail-type": _WORDS.replace("[A-Za-z_]", "[A-Za-z0-9_]"),
        "mail-user": r"[A-Za-z0-9_.+@,-]+",
        "mcs-label": _NAME,
        "profile": _WORDS,
        "acctg-freq": r"[a-z0-9=,]+",
    }
)

_WITHOUT_VALUE_TOO = frozenset({"exclusive", "nice", "propagate"})
"""Options whose value may be left out."""

_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("array", "hetjob"), "an attempt is one job; set `replicas` for more of them"),
        **dict.fromkeys(
            ("dependency", "job-name", "requeue", "no-requeue", "hold", "begin", "deadline", "immediate"),
            "the controller decides when a job is sent and how it is told apart",
        ),
        **dict.fromkeys(
            ("output", "error", "input", "open-mode", "chdir", "comment", "signal", "parsable", "wait", "test-only"),
            "the controller sets it",
        ),
        **dict.fromkeys(
            ("export", "export-file", "get-user-env"), "set `environment` or `environment_from` in the recipe"
        ),
        **dict.fromkeys(("wrap", "container"), "the recipe's command and image say what runs"),
        **dict.fromkeys(("uid", "gid"), "jobs run as the controller's user"),
        **dict.fromkeys(("clusters", "cluster-constraint"), "a controller serves one cluster"),
    }
)


def check_extra_options(options: Iterable[str]) -> tuple[str, ...]:
    """Return the extra options, each `--name` or `--name=value`, if all of them may be given.

    Raises ValueError, which names the option and what to do.
    """
    return tuple(check_option(option) for option in options)


def check_option(option: str) -> str:
    """Return one extra option if it may be given. Names must be written out in full; sbatch would also take `--arr`."""
    match = re.fullmatch(r"--([a-z][a-z0-9-]*)(?:=(.*))?", option, re.DOTALL)
    if not match:
        msg = f"{_shown(option)} is not an sbatch option of the form --name or --name=value: write it so"
        raise ValueError(msg)
    name, value = match[1], match[2]
    if name not in _ALLOWED:
        raise ValueError(_why_not(name))
    _check_allowed(name, value)
    return option


def check_value(field: str, value: str) -> str:
    """Return the value of a field of `resources` (a key of FIELDS) if sbatch can be given it. Raises ValueError."""
    _check_text(f"`{field}`", value, FIELDS[field])
    return value


def _check_allowed(name: str, value: str | None) -> None:
    pattern = _ALLOWED[name]
    if pattern is None:
        if value is not None:
            msg = f"the sbatch option --{name} takes no value: write --{name} alone"
            raise ValueError(msg)
    elif value is None:
        if name not in _WITHOUT_VALUE_TOO:
            msg = f"the sbatch option --{name} needs a value: write --{name}=VALUE"
            raise ValueError(msg)
    else:
        _check_text(f"the sbatch option --{name}", value, pattern)


def _check_text(what: str, value: str, pattern: str) -> None:
    if len(value) > MAX_LENGTH:
        msg = f"the value of {what} has {len(value)} characters; shorten it to {MAX_LENGTH}"
        raise ValueError(msg)
    if not re.fullmatch(pattern, value):
        msg = f"{_shown(value)} is no value for {what}: see sbatch(1), and leave blanks and control characters out"
        raise ValueError(msg)


def _why_not(name: str) -> str:
    if name in _OWN_FIELD:
        return f"the sbatch option --{name} has a field of its own: set `resources.{_OWN_FIELD[name]}` instead"
    if name in _REFUSED:
        return f"the sbatch option --{name} is not allowed: {_REFUSED[name]}. Take it out"
    return f"the sbatch option --{name} is not on the list: take it out, or use one of {', '.join(sorted(_ALLOWED))}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
