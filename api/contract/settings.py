"""Everything that can be set: values with their defaults. `api.contract.configuration` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

Pause = Annotated[float, msgspec.Meta(gt=0, le=10**7)]
Grace = Annotated[float, msgspec.Meta(ge=0, le=10**7)]
"""Seconds."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The REST API."""

    host: str = "127.0.0.1"
    """Any address but loopback needs `admin_key_file`."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8001
    admin_key_file: Path | None = None
    """File of mode 0600 with the administrator's key; sent by clients as `Authorization: Bearer KEY`."""
    access: Literal["owner", "project", "everyone"] = "everyone"
    """Who sees services that do not say it themselves, and may ask them, beside their owner."""
    local_users: tuple[str, ...] = ()
    """Users of this host who need no key, each with what they may do: `alice:infer+read`. The operator may do all."""
    proxy_uids: tuple[str, ...] = ()
    """Users, by name or uid, whose connections are other people's: without a key they are nobody's."""
    require_key: bool = False
    """Over TCP the operator's own connections need the key too; the command line comes by a Unix socket."""
    tls_certificate: Path | None = None
    """PEM, with its chain: API and gateway serve HTTPS then."""
    tls_key: Path | None = None
    plain_http: bool = False
    """Serve other hosts without TLS: for a proxy in front that speaks it."""


LeftOut = Literal["cpu", "memory", "time_limit"]
"""What of a job's resources Slurm can choose by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """How jobs are submitted on this site. Empty strings mean: Slurm's own default."""

    conf: str = ""
    """Path of slurm.conf where the commands do not find it themselves (SLURM_CONF)."""
    bin_dir: str = ""
    """Folder of sbatch, squeue and so on, where they are not on PATH."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    gres: str = ""
    extra_options: tuple[str, ...] = ()
    """Further sbatch options for every job, from the allow-list, e.g. `["--exclusive"]`."""
    leave_out: tuple[LeftOut, ...] = ()
    """What no job asks for, whoever says how much: Slurm chooses. Some sites refuse `--mem`."""
    gpu_vendor: Literal["auto", "nvidia", "amd", "intel"] = "auto"
    """Whose GPUs the nodes have; `auto`: each job looks."""
    prologue: str = ""
    """Shell text run in the job before anything else, e.g. `module load apptainer`. The site's own, trusted."""
    python: str = "python3"
    """The Python (3.9 or later) on the compute nodes that runs the job's supervisor; else jobs look for another."""
    volumes: str = ""
    """Folder on the compute nodes for the writable volumes of services; empty: `volumes` in run_dir."""
    volume_roots: tuple[str, ...] = ()
    """Folders on the compute nodes below which a service's config may place volumes by path."""
    secret_roots: tuple[str, ...] = ()
    """Folders on the compute nodes below which the files of `environment_from` must lie; empty: anywhere."""
    port_range: tuple[Port, Port] | None = None
    """Ports that jobs may listen on, where a firewall leaves only some open."""
    time_warning: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 120
    """Seconds before the time limit at which the job is warned."""
    command_timeout: Pause = 20.0
    """Seconds after which a Slurm command counts as unanswered."""
    log_megabytes: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100
    """A job's stdout.log or stderr.log that is longer is moved to its one older file, `.1`; 0: they grow on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApptainerSettings:
    """The container runtime on the compute nodes."""

    command: str = "apptainer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings:
    """Where models lie on the compute nodes."""

    folders: tuple[str, ...] = ()
    """Folders that every container sees at the same path, read-only."""
    cache: str = ""
    """Folder into which engines download models, each once (HF_HOME); empty: `models` in run_dir."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSettings:
    """Where container images are made, and how long they are kept. Empty strings mean: as `slurm` has it."""

    build: Literal["host", "job"] = "host"
    """`job`: in jobs without GPUs, for which the jobs of services wait. `host`: `ai-factory images pull` and `build`
    work on the host where they are typed, and what is missing then is made by the first job that needs it."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    cpu: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 4
    memory: str = "16G"
    """As in a recipe's resources; packing an image takes the more of it the more CPUs there are."""
    time_limit: Annotated[int, msgspec.Meta(ge=1, le=525_600)] = 120
    """Minutes."""
    extra_options: tuple[str, ...] = ()
    """Further sbatch options of these jobs, from the allow-list; those of `slurm` are not theirs."""
    keep_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] = 0.0
    """How long the controller keeps an image that nothing uses; 0: for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The OpenAI-compatible address in front of the models."""

    host: str = "127.0.0.1"
    """Of the gateway as a program of its own; the API has one in its own process."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8003
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """Its processes."""
    credentials: Path | None = None
    """Folder with what opens doors, where the installation's key is not."""
    url: str = ""
    """Where clients reach it, e.g. `https://ai.site.example`: `endpoint` begins with it. Empty: api.host and port."""
    connect: Pause = 5.0
    """Seconds that a connection to an engine may take."""
    first_byte: Pause = 600.0
    """Seconds until the first byte of an engine's answer."""
    silence: Pause = 600.0
    """Seconds for which an engine may say nothing in its answer."""
    comment_after: Grace = 15.0
    """Seconds without a first byte after which a stream's client is sent a comment, and then again; 0: never."""
    queue_length: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 100
    """Requests for one service that may wait until it can take them."""
    queue_seconds: Grace = 10.0
    """For so long each."""
    in_flight: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Requests that one replica is asked at a time; 0: any number, since vLLM queues by itself."""
    largest_body: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    """Megabytes of a request."""
    media_hosts: tuple[str, ...] = ()
    """Hosts from which engines may fetch what the URLs in requests name (pictures, sounds)."""
    stale_keys: Grace = 3600.0
    """For so many seconds the keys that are known go on while the database is away."""
    drain: Grace = 1800.0
    """Seconds for which a process that is replaced goes on answering what it is at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """The controller's rhythm, in seconds, and what it tells of itself."""

    lease: Pause = 15.0
    """A standby takes over when the leader has not renewed for this long."""
    fastest_reading: Pause = 2.0
    """Between two readings of the cluster while something changes."""
    slowest_reading: Pause = 15.0
    resync: Pause = 300.0
    """Every service is looked at this often even if nothing woke it."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    """Services worked on at the same time."""
    watches: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20_000
    """Doors of engines that are watched, a connection each, but for half of the descriptors at most; the others are
    probed by turns."""
    submit_burst: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 50
    """Jobs that are submitted at once; what is more waits for its turn."""
    submit_rate: Annotated[float, msgspec.Meta(ge=0.01, le=10_000)] = 10.0
    """Jobs a second that are submitted when more than a burst is wanted; see slurm.conf(5), rl_enable."""
    absence_grace: Grace = 15.0
    accounting_grace: Grace = 60.0
    backoff_first: Grace = 2.0
    backoff_most: Grace = 300.0
    quick_end: Grace = 60.0
    steady_after: Grace = 600.0
    doubt_grace: Grace = 600.0
    """How long a mass vanishing is doubted for which no other source speaks."""
    drain_settles: Grace = 5.0
    """How long a request may be on its way to an engine, by who has not heard yet that it gets no more."""
    drain_most: Grace = 300.0
    """How long an attempt may finish what it has in flight whose successor is ready, or whose job was told to end."""
    keep_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] = 30.0
    """How long events, ended attempts with their job folders, and deleted services are kept; 0: for ever."""
    plan_log: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 20
    """Megabytes of each of the two files in state_dir that hold every plan with its inputs; 0: none are kept."""
    metrics_host: str = "127.0.0.1"
    """There is no key to them: figures only, no names."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Where /metrics (for Prometheus) and /health answer; 0: nowhere."""
    failpoint: str = ""
    """For tests: where the controller kills itself; see `controller.failpoints`."""


Ceiling = Annotated[int, msgspec.Meta(ge=0, le=10**6)]
Hours = Annotated[float, msgspec.Meta(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """Ceilings on GPUs; 0: none. What does not fit waits, and says so."""

    gpus: Ceiling = 0
    """GPUs that the jobs of all services together may ask for at a time."""
    gpus_per_service: Ceiling = 0
    gpu_hours: Hours = 0.0
    """GPU-hours that all services together may use in a calendar month (UTC); then their GPU jobs are ended."""
    gpu_hours_per_service: Hours = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. The defaults work on one machine."""

    state_dir: Path
    """Local to the controller's host: the SQLite database and the keys."""
    run_dir: Path
    """Shared with the compute nodes: job folders, logs, images."""
    recipes: tuple[Path, ...]
    """Folders of recipes; an earlier one wins."""
    database_url: str
    key_file: Path
    """The installation's key: 32 random bytes, mode 0600, the same for API and controller."""
    server: str = ""
    """Where the command line finds the API, `http://HOST:PORT` or `unix:PATH`; empty: as `api` has it."""
    server_authority: Path | None = None
    """PEM: who vouches for the certificate of that server; none: whom this host trusts."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    """The log lines of all programs: text for people, or one JSON object each."""
    api: ApiSettings = field(default_factory=ApiSettings)
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    apptainer: ApptainerSettings = field(default_factory=ApptainerSettings)
    models: ModelsSettings = field(default_factory=ModelsSettings)
    images: ImagesSettings = field(default_factory=ImagesSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    quota: QuotaSettings = field(default_factory=QuotaSettings)
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changes of this site to recipes, by path: merged over the YAML file before it is checked."""

    @property
    def api_socket(self) -> Path:
        """Where the API serves the command line with `api.require_key`."""
        return self.state_dir / "api.sock"

    @property
    def model_cache(self) -> str:
        """Where engines keep the models that they download."""
        return self.models.cache or str(self.run_dir / "models")
