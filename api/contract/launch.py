"""A service ready to be launched: its recipe merged with its config, every value checked and resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from api.contract.job.parameters import Image, Text, hold
from api.contract.job.words import Network

Access = Literal["door", "direct"]
"""How an engine is reached: through its job's door, to those who prove themselves, or on a port of its own."""

GpuVendor = Literal["nvidia", "amd", "intel"]
"""Whose GPUs an engine is for."""

UpdateStrategy = Literal["rolling", "recreate"]
"""How a change reaches what runs: one replica after another, or all ended before the first new one starts."""


NoRoomPolicy = Literal["gap", "shrink"]
"""What becomes of a replica whose successor has no room beside it.

It serves up to its job's time limit, or ends before, drained, while others serve.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the job asks of Slurm; the names are sbatch's (sbatch(1)). `None` leaves it to the site's default."""

    nodes: int = 1
    cpu: int | None = 1
    memory_mb: int | None = 1024
    gpu: int = 0
    """On each node; 0 where `gres` or an option asks for them (`api.contract.gpus`)."""
    gpu_type: str | None = None
    time_limit: int | None = 60
    """Minutes."""
    time_min: int | None = None
    """Minutes to which Slurm may lower the time limit, if the job then begins earlier; `None`: it may not."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    gres: str | None = None
    extra_options: tuple[str, ...] = ()
    """Further sbatch options, each of the form `--name` or `--name=value`, already checked by the allow-list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One job, as it is to be submitted. Paths are absolute, and meant literally."""

    token: str
    """Its name."""
    resources: Resources
    folder: str
    """Where it runs, and where its logs lie."""
    script: str
    arguments: tuple[str, ...] = ()
    keeps_logs: bool = True
    """Whether what it prints is kept."""
    comment: str
    warning: int
    """How many seconds before its time limit the script is warned; 0: it is not."""
    exclude: tuple[str, ...] = ()
    """Nodes to keep it off, if others are there that it may run on."""
    after: int | str | None = None
    """A job that must have ended first, however it ended; one that Slurm has forgotten has (sbatch(1))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a replica shows that it is well. Times in seconds."""

    kind: Literal["http", "tcp", "command"] = "http"
    """The controller asks for `path`, or only connects; or the job's wrapper runs `command` beside the engine."""
    path: str = "/health"
    command: tuple[Text, ...] = ()
    """Run in a container like the engine's, with its environment, binds, /tmp and home; 0 is well."""
    interval: float = 10.0
    timeout: float = 5.0
    retries: int = 3
    """Failures in a row after which a ready replica is replaced."""
    startup_timeout: float = 1800.0
    """How long a started job may take until it is ready."""
    startup_guess: float | None = None
    """How long one probably takes, while few have been seen to start."""


REPLICA = "{replica}"
"""Stands for a replica's number in the name or path of a volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A folder bound writable, for one job at a time. Exactly one of `name` and `path` is set."""

    target: str
    """Where the engine sees it."""
    name: str | None = None
    """A folder of the service's own, in the site's folder of volumes."""
    path: str | None = None
    """An absolute path on the compute nodes."""
    root: str | None = None
    """The folder of the site's that `path` must lie below, where a service gave it; `None`: a recipe did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All that deciding and launching need to know of one generation of a service."""

    recipe: str
    """The recipe's path, `category/stem`."""
    kind: Literal["service", "job"]
    """A service runs until it is stopped; a job ends by itself."""
    engine: Literal["vllm", "generic"]
    model: str | None
    """The name under which the engine serves its model."""
    further_models: tuple[str, ...] = ()
    """Other names that it answers to: of the model, and of LoRA adapters. They follow from the command."""
    image: Image | None
    """`None`: the command runs on the node itself, without a container."""
    command: tuple[Text, ...]
    environment: Mapping[str, Text] = field(default_factory=dict)
    environment_from: Mapping[str, str] = field(default_factory=dict)
    """Variable -> absolute path of a file on the compute node that holds its value (secrets)."""
    binds: tuple[str, ...] = ()
    """Apptainer binds, `source:destination[:options]`, from the recipe or the site, never from users."""
    volumes: tuple[Volume, ...] = ()
    """Not empty: a volume without `{replica}` allows one replica only."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that travel with the recipe: name -> text; bound read-only as `/recipe/NAME`."""
    resources: Resources
    health: Health | None
    """`None` where nothing listens (jobs that end by themselves)."""
    access: Access = "direct"
    """Those that were stored before there were doors are direct."""
    network: Network = Network.HOST
    exposed: bool = False
    """Whether the gateway passes any path on to it, through its door. To the job it means nothing."""
    replicas: int = 1
    stop_grace: float = 30.0
    """Seconds between TERM and KILL."""
    max_failures: int = 5
    """Failed starts in a row, never once ready, after which the service counts as failed."""
    update_strategy: UpdateStrategy = "rolling"
    surge: int = 1
    """How many replicas at a time may have a successor beside them because of a change."""
    max_unavailable: int = 1
    """How many replicas may not serve because of a change, where none has a successor beside it."""
    no_room: NoRoomPolicy = "gap"
    secret_variable: str | None = None
    """The environment variable through which the engine takes the attempt's secret; `None` behind a door."""
    gpu_vendor: GpuVendor | None = None
    """Whose GPUs the engine is for; `None`: the job looks what its node has."""
    restarted_at: str | None = None
    """Changes nothing but the digest: a new value has every replica launched anew (kubectl has `restartedAt`)."""
    paths: tuple[str, ...] = ()
    """Files and folders that the engine is told to read, and so has to see; part of its command."""
    warnings: tuple[str, ...] | None = None
    """What is to be said about the config; `None`: nobody has looked. To the job it means nothing."""

    @property
    def has_door(self) -> bool:
        """Whether its jobs have doors: not where nothing listens."""
        return self.access == "door" and self.health is not None

    @property
    def may_overlap(self) -> bool:
        """Whether two engines of a replica may live at a time: not where they would write to one volume."""
        return not self.volumes and self.update_strategy == "rolling"

    @property
    def changes_beside(self) -> bool:
        """Whether a change opens a successor beside what serves; else that ends before."""
        return self.may_overlap and self.surge > 0 and self.kind == "service"

    @property
    def is_on_loopback(self) -> bool:
        """Whether its engines listen on a port of their nodes' loopback behind their doors: they take no socket."""
        if not self.has_door or self.network is Network.PRIVATE:
            return False
        check = self.health.command if self.health is not None else ()
        return not hold((*self.command, *self.environment.values(), *check), "socket")
