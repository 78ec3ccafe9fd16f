"""What a job is told: `params.json`, as the controller writes it and the job reads it."""

# Annotations are evaluated here, for `typed` to read them: no newer spelling than Python 3.9's.

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Optional, Union

from api.contract.job.words import Lane, Network

VERSION = 1
"""The newest version of the file that is understood here. What is added and may be ignored does not change it."""

RUNTIME_VALUES = ("port", "host", "files", "socket")
"""What `{"runtime": …}` may stand for."""


VENDORS = ("nvidia", "amd", "intel")
"""Whose GPUs an engine may be for."""


def _runtime(piece: Mapping[str, str]) -> None:
    if piece.get("runtime") not in RUNTIME_VALUES:
        raise ValueError(f"unknown runtime value {piece.get('runtime')!r}")


def _variable(name: str) -> None:
    # Apptainer writes names into shell text, so nothing but a plain identifier may pass.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise ValueError(f"{name!r} can't name a variable")


def _file_name(name: str) -> None:
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"{name!r} is not a plain file name")


def is_plain_folder(path: str) -> bool:
    """Whether a text is an absolute path that leads nowhere but where it says."""
    return path.startswith("/") and path.isprintable() and ".." not in path.split("/")


def _folder(path: str) -> None:
    if not is_plain_folder(path):
        raise ValueError(f"{path!r} is no plain absolute path")


def _seconds(number: float) -> None:
    if not 0 <= number < float("inf"):
        raise ValueError("not a number of seconds")


def _bytes(number: int) -> None:
    if number < 0:
        raise ValueError("not a number of bytes")


def _vendor(name: str) -> None:
    if name not in VENDORS:
        raise ValueError(f"not one of {', '.join(VENDORS)}")


def _ports(ports: tuple[int, int]) -> None:
    if not 0 < ports[0] <= ports[1] < 65536:
        raise ValueError("not a range of ports")


Piece = Union[str, Annotated[Mapping[str, str], _runtime]]
"""A literal string, or `{"runtime": "port"}`: a value that only the running job knows."""

Text = Union[str, tuple[Piece, ...]]
"""One argument or environment value: a literal, or pieces that the job joins. User values are always literals."""


def hold(texts: Iterable[Text], value: str) -> bool:
    """Tell whether one of the texts has a runtime value in it."""
    return any({"runtime": value} in text for text in texts if not isinstance(text, str))


Variable = Annotated[str, _variable]
FileName = Annotated[str, _file_name]
Folder = Annotated[str, _folder]
"""A plain absolute path on the node."""
Seconds = Annotated[float, _seconds]
Bytes = Annotated[int, _bytes]
Vendor = Annotated[str, _vendor]
Ports = Annotated[tuple[int, int], _ports]
"""Lowest and highest port, both included."""


@dataclass(frozen=True)
class Image:
    """Where the container comes from. Exactly one of the two is set.

    `source` is a path to a .sif file, or an OCI reference (`docker://…`, `oras://…`) that is pulled once;
    `definition` is the text of an Apptainer definition file that is built once.
    """

    source: Optional[str] = None
    definition: Optional[str] = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.definition is None):
            raise ValueError("needs a source or a definition")


@dataclass(frozen=True)
class VolumeMount:
    """A folder that one job at a time may write to."""

    source: Folder
    target: Folder
    """Where the engine sees its data."""
    root: Optional[Folder] = None
    """Below which it must lie, links followed; `None`: anywhere."""


@dataclass(frozen=True)
class HealthCommand:
    """A command whose exit code says whether the engine is well."""

    command: tuple[Text, ...]
    interval: Seconds = 10.0
    timeout: Seconds = 5.0

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("its command is empty")


@dataclass(frozen=True)
class SecretFiles:
    """Which files `environment_from` may name, links followed."""

    roots: tuple[Folder, ...] = ()
    """They must lie below one of these; none: anywhere."""
    never: tuple[str, ...] = ()
    """Files and folders of the installation's own: none of them, and nothing below."""


@dataclass(frozen=True)
class Door:
    """What the job's door shows and whom it opens to; all PEM."""

    certificate: str
    key: str = field(repr=False)
    authority: str
    """Whose clients may come in."""
    id: str
    """Under which of the installation's keys it was made; told on, not used."""


@dataclass(frozen=True)
class Parameters:
    """All that the controller says about the job; see the launch spec for what each means.

    Later releases may add fields; each has a default, which is what a file without it means.
    """

    version: int = VERSION
    token: str = ""
    digest: Optional[str] = None
    """What identifies the launch spec; told on, not used."""
    lane: Lane = Lane.MAIN
    """Each lane of a replica has a slot of its own."""
    alone: bool = False
    """Nothing of the replica's other lane may live beside it: it takes that one's slot too."""
    image: Optional[Image] = None
    """`None`: the command runs on the node itself."""
    refresh: bool = False
    """The image is to be made anew."""
    image_cache: str = "."
    apptainer: str = "apptainer"
    command: tuple[Text, ...] = ()
    """Empty: the image is to be made, and nothing is run in it."""
    environment: Mapping[Variable, Text] = field(default_factory=dict)
    environment_from: Mapping[Variable, str] = field(default_factory=dict)
    secret_files: SecretFiles = field(default_factory=SecretFiles)
    binds: tuple[str, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    files: Mapping[FileName, str] = field(default_factory=dict)
    model_folders: tuple[Folder, ...] = ()
    """Seen in the container at the same path, read-only; what is not on the node is left out."""
    model_cache: Optional[Folder] = None
    """Seen likewise, and written to: the engine's HF_HOME, unless it is given another."""
    paths: tuple[str, ...] = ()
    """Files and folders that the engine is told to read."""
    nv: bool = False
    """The job asks for GPUs, of whichever vendor."""
    gpu_vendor: Optional[Vendor] = None
    """`None`: found on the node, if it has GPUs."""
    network: Network = Network.HOST
    listens: bool = True
    host: str = "0.0.0.0"  # noqa: S104
    """Engines are reached from the controller's and the API's hosts."""
    secret: Optional[str] = field(default=None, repr=False)
    secret_variable: Optional[Variable] = None
    door: Optional[Door] = None
    """`None`: the engine itself listens on a port of the node."""
    port_range: Optional[Ports] = None
    """`None`: any."""
    stop_grace: Seconds = 30.0
    """Between TERM and KILL."""
    drain_most: Seconds = 300.0
    """Before TERM, for what is in flight, where somebody else than the controller has told the job to end."""
    warned_after: Seconds = 0.0
    """From the job's start; a warning (USR1) that comes sooner is no time limit's: somebody tells the job to end."""
    home: Optional[str] = None
    """The engine's home on the node; `None`: a folder that ends with the job."""
    check: Optional[HealthCommand] = None
    """`None`: the controller asks the engine itself."""
    log_bytes: Bytes = 0
    """A log that is longer is rotated; 0: none is."""

    def __post_init__(self) -> None:
        if not self.command and self.image is None:
            raise ValueError("command: empty")

    def to_json(self) -> str:
        """Return the text of the file. It holds the attempt's secret: mode 0600, removed by the job."""
        return json.dumps(asdict(self))
