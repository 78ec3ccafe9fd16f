"""What a recipe file may say. Unknown keys are refused; every message names the key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.contract.job.words import Network
from api.contract.launch import Access, GpuVendor, NoRoomPolicy, UpdateStrategy

Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Positive = Annotated[float, Meta(gt=0, le=10**9)]
VOLUME_NAME = r"^(?:[A-Za-z0-9]|\{replica\})(?:[A-Za-z0-9._-]|\{replica\}){0,63}\Z"
Command = list[str | list[str]]
MOST_AT_ONCE = 1000
AtOnce = Annotated[int, Meta(ge=0, le=MOST_AT_ONCE)]


class Parameter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value that a service may set by name."""

    type: Literal["string", "integer", "number", "boolean", "list"]
    default: Any = None
    """`null`: not set; the groups of the command that use it are left out."""
    description: str = ""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    """A regular expression that the whole value must match."""
    choices: list[Any] | None = None
    forbidden: list[str] = []
    """For lists of arguments: options that a service may not pass, because the recipe sets them."""
    variable: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")] | None = None
    """An older spelling: the variable in a config's `environment` that sets it where its name does not."""


class ResourcesPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the job asks of Slurm."""

    nodes: int | str | None = None
    cpu: int | str | None = None
    memory: int | str | None = None
    gpu: int | str | None = None
    time_limit: int | str | None = None
    time_min: int | str | None = None
    """To which the time limit may be lowered, if the job then begins earlier: before a maintenance reservation."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    gres: str | None = None
    extra_options: list[str] | None = None


class HealthPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a replica shows that it is well; seconds."""

    kind: Literal["http", "tcp", "command"] | None = None
    """Left out: `command` where there is one, `http` where there is an endpoint or the engine is vllm, else `tcp`."""
    endpoint: Annotated[str, Meta(pattern=r"^/[!-~]*\Z")] | None = None
    """What `http` asks for; /health where left out."""
    command: Command = []
    """What `command` runs in the container, spelled like the engine's: it ends with 0 where all is well."""
    interval: Positive = 10.0
    timeout: Positive = 5.0
    retries: Annotated[int, Meta(ge=1)] = 3
    startup_timeout: Positive = 1800.0
    startup_guess: Positive | None = None
    """Until enough starts have been measured."""


class VolumePart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A folder that outlives jobs; either `name` or `path`, with `{replica}` in it for one of each replica's."""

    target: str
    """Where the engine sees it."""
    name: Annotated[str, Meta(pattern=VOLUME_NAME)] | None = None
    """A folder of the service's own."""
    path: str | None = None
    """An absolute path on the compute nodes."""


class UpdatePart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a change of a running service is rolled out."""

    strategy: UpdateStrategy = "rolling"
    """`rolling`: replicas that serve are replaced one after another. `recreate`: all end before the first new one."""
    surge: AtOnce = 1
    """How many replicas at a time may have a successor beside them because of a change. 0: each ends before."""
    max_unavailable: AtOnce = 1
    """How many replicas may not serve because of a change, where none has a successor beside it."""
    no_room: NoRoomPolicy = "gap"
    """What becomes of a replica whose job ends where its successor has no room beside it.

    `gap`: it serves up to the time limit. `shrink`: it ends before, drained, while others serve.
    """


class RestartPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When to give up."""

    max_failures: Annotated[int, Meta(ge=1, le=1000)] = 5


class RecipeFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file, `recipes/<category>/<stem>.yaml`."""

    name: Word
    category: Word
    description: str
    version: str
    kind: Literal["service", "job"] = "service"
    engine: Literal["vllm", "generic"] = "generic"
    image: str | None = None
    """A .sif path, or an OCI reference."""
    container_def: str | None = None
    """An Apptainer definition file beside the recipe."""
    program: Annotated[list[str], Meta(min_length=1)]
    """What is run; the command's words follow it."""
    command: Command = []
    """Words, with `{parameter}` and `{port}` in them; a word that is a whole list parameter becomes its items;
    a group of words in brackets is left out when a parameter in it is not set."""
    ports: list[int] = []
    """Not empty: something listens. The port itself is chosen by the job; the number is only the usual one."""
    access: Access = "door"
    """`door`: only this installation's programs reach it, by mutual TLS; it listens on `{socket}`, or on `{port}` of
    loopback. `direct`: it listens on `{port}` of its node, for whoever speaks its protocol."""
    network: Network = Network.HOST
    """`private`: a loopback of its own and nothing else, where the kernel allows it; nobody but its door reaches it
    there, and it reaches nobody."""
    exposed: bool = False
    """Whoever has a key reaches every path of it through its door, under the gateway's `/services/NAME`."""
    environment: dict[str, str | int | float | bool] = {}
    environment_from: dict[str, str] = {}
    binds: list[str] = []
    volumes: list[VolumePart] = []
    """What may be written to and stays; one job at a time uses it."""
    files: list[str] = []
    """Files beside the recipe that travel with it, seen in the container as `/recipe/NAME`."""
    resources: ResourcesPart = ResourcesPart()
    gpu_vendor: GpuVendor | None = None
    """Whose GPUs the image is made for; left out: the site's, or what the node has."""
    health_check: HealthPart | None = None
    parameters: dict[str, Parameter] = {}
    update: UpdatePart = UpdatePart()
    restart: RestartPart = RestartPart()
    replicas: Annotated[int, Meta(ge=0, le=1000)] = 1
    stop_grace: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    model: str | None = None
    """Under which name the engine serves, e.g. `{served_model_name}`."""
    secret_variable: str | UnsetType | None = UNSET
    """With direct access, the environment variable through which the engine takes its key; VLLM_API_KEY where the
    engine is vllm."""
