"""The grammar of the commands about images."""

from __future__ import annotations

from api.cli.parser import FORMATS, Commands, command, group


def add(commands: Commands) -> None:
    """Add the group images."""
    images = group(
        commands, "images", "see, make, verify and clear the container images of this site",
        "images list", "images pull docker://ghcr.io/owner/name:1.0",
    )  # fmt: skip
    command(
        images, "list", "images.list:list_", "list the images in run_dir, and who uses them",
        "images list", "images list -o wide",
        formats=FORMATS,
    )  # fmt: skip
    pull = command(
        images, "pull", "images.make:make", "pull an image before a service needs it",
        "images pull inference/vllm --job", "images pull docker://ghcr.io/owner/name:1.0 --refresh",
        formats=("table", "json", "name"),
    )  # fmt: skip
    pull.add_argument("what", metavar="RECIPE|REFERENCE", help="e.g. inference/vllm, or docker://owner/name@sha256:…")
    build = command(
        images, "build", "images.make:make", "build an image before a service needs it",
        "images build inference/vllm_dummy", "images build engine.def --job",
        formats=("table", "json", "name"),
    )  # fmt: skip
    build.add_argument("what", metavar="RECIPE|FILE.def", help="a recipe, or a definition file of Apptainer's")
    for parser in (pull, build):
        where = parser.add_mutually_exclusive_group()
        job, host = "in a job without GPUs; Ctrl-C cancels it", "on this host"
        where.add_argument("--job", dest="where", action="store_const", const="job", help=job)
        where.add_argument("--host", dest="where", action="store_const", const="host", help=host)
        parser.add_argument("--refresh", action="store_true", help="make it anew, even if it is there")
    verify = command(
        images, "verify", "images.verify:verify",
        "compare images with what was made, and have Apptainer read them; exit 1 if one is damaged",
        "images verify", "images verify --remove",
        formats=("table", "json"),
    )  # fmt: skip
    verify.add_argument("keys", metavar="KEY", nargs="*", help="or its beginning; default: all")
    verify.add_argument("--remove", action="store_true", help="remove those that are damaged and not in use")
    prune = command(
        images, "prune", "images.prune:prune", "remove images that nothing uses",
        "images prune --dry-run", "images prune --unused-for 7",
        formats=("table", "json", "name"),
    )  # fmt: skip
    about = "only those unused for so long; default: images.keep_days, else 30; 0: all that are unused now"
    prune.add_argument("--unused-for", type=float, metavar="DAYS", help=about)
    prune.add_argument("--dry-run", action="store_true", help="remove nothing, only tell")
