"""The grammar of the commands about the site: whether it works, how it is kept."""

from __future__ import annotations

from argparse import REMAINDER

from api.cli.parser import Commands, command

SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands) -> None:
    """Add doctor, secure, backup, restore, adopt, config and completion."""
    doctor = command(
        commands, "doctor", "doctor.command:doctor", "check everything this needs",
        "doctor",
        "doctor --timeout 600  # where a job waits for long",
        "doctor --no-job -o json",
        formats=("table", "json"),
        is_local=False,
    )  # fmt: skip
    doctor.add_argument("--no-job", dest="job", action="store_false", help="submit no job")
    doctor.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for the job (%(default)g)")
    command(
        commands, "secure", "site.secure:secure",
        "close state_dir and run_dir to others, and check what they could write; exit 1 if something is left to do",
        "secure", "secure -o json",
        formats=("table", "json"),
        more="Services may run meanwhile.",
    )  # fmt: skip
    backup = command(
        commands, "backup", "site.backup:backup", "write database and key into one file, while everything runs",
        "backup /backups/ai-factory.tar",
    )  # fmt: skip
    backup.add_argument("file", metavar="FILE", help="a new file; it holds secrets, and is made with mode 0600")
    restore = command(
        commands, "restore", "site.backup:restore", "fill an empty database from a backup",
        "restore /backups/ai-factory.tar",
    )  # fmt: skip
    restore.add_argument("file", metavar="FILE")
    adopt = command(
        commands, "adopt", "site.adopt:adopt",
        "show the jobs on the cluster of which the database knows nothing, as after a restore",
        "adopt",
        "adopt --take  # with the controller stopped",
        "adopt --cancel k3x9pq  # the jobs of an installation that is no more",
        formats=("table", "json"),
        more="Jobs of other installations of this user are shown too.",
    )  # fmt: skip
    chosen = adopt.add_mutually_exclusive_group()
    chosen.add_argument("--take", action="store_true", help="have their services own them; no controller may run")
    about = "end all jobs of this installation, another than this database's"
    chosen.add_argument("--cancel", metavar="INSTALLATION", help=about)
    command(
        commands, "config", "site.config:show", "print the settings in effect",
        "config", "config -o json  # with where each value came from",
        formats=("table", "json"),
    )  # fmt: skip
    completion = command(
        commands, "completion", "completion:script", "print what has a shell complete commands, flags and names",
        'completion bash >~/.local/share/bash-completion/completions/ai-factory',
        'completion zsh >"${fpath[1]}/_ai-factory"',
        'completion fish >~/.config/fish/completions/ai-factory.fish',
        more="Names of services and recipes are asked of the API, if it answers within a second.",
    )  # fmt: skip
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    _hidden(commands)


def _hidden(commands: Commands) -> None:
    """Add what the scripts of `completion` ask; no help names it."""
    complete = commands.add_parser("complete", description="Print what the last word may become.", allow_abbrev=False)
    complete.set_defaults(run="api.cli.completion:complete", formats=("table",))
    complete.add_argument("words", metavar="WORD", nargs=REMAINDER)
