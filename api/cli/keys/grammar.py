"""The grammar of the commands about the installation's keys."""

from __future__ import annotations

from api.cli.parser import Commands, command, group


def add(commands: Commands) -> None:
    """Add key."""
    keys = group(commands, "key", "the installation's keys: by them engines and those who ask them know each other",
                 "key list", "key rotate")  # fmt: skip
    command(
        keys, "list", "keys.list:list_", "list the keys, the newest first, and the services whose jobs need each",
        "key list",
        "key list -o json",
        formats=("table", "json", "name"),
    )  # fmt: skip
    rotate = command(
        keys, "rotate", "keys.rotate:rotate", "put a new key before those that there are; nothing restarts",
        "key rotate",
        "key rotate --now  # where the old key may be known to others",
        more="What is launched from now on is launched under it. Old keys stay until they are pruned.",
    )  # fmt: skip
    rotate.add_argument("--now", action="store_true", help="have all services that need an old key launched anew")
    command(
        keys, "prune", "keys.prune:prune", "drop the old keys that no job needs",
        "key prune",
        more="The cluster is asked too: after a restore it may run jobs of which the database knows nothing.",
    )  # fmt: skip
