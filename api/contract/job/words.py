"""The words by which a job says how far it is and how it ended. A reader may meet others, of another release."""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A word that is written as it is."""

    def __str__(self) -> str:
        return str(self.value)


class Lane(Word):
    """Where an attempt stands beside another of its replica: one open attempt a replica and lane."""

    MAIN = "main"
    B = "b"


class Network(Word):
    """Whose network an engine has."""

    HOST = "host"
    """The node's."""
    PRIVATE = "private"
    """Its own, where the kernel allows that: a loopback, and nothing else."""


class Step(Word):
    """How far a job's wrapper is: `state.json`."""

    CLAIMED = "claimed"
    """It has the claim of its attempt."""
    IMAGE = "image"
    """The image is made, or waited for."""
    SLOT = "slot"
    """The engine before may still be ending."""
    VOLUME = "volume"
    """A volume is waited for."""
    STARTING = "starting"
    """The engine is started."""
    LOADING = "loading"
    """The engine tells of its start."""
    SERVING = "serving"
    """Its engine accepts connections, or nothing is to listen."""
    DRAINING = "draining"
    """It was told to end."""


class ExitReason(Word):
    """Why a job ended, as its wrapper says: `exit.json`. docs/operation.md says what to do about each."""

    ENGINE_EXITED = "EngineExited"
    TERMINATED = "Terminated"
    """A signal told it to end."""
    TIME_LIMIT = "TimeLimit"
    """A signal told it to end, after the warning that its time limit is near."""
    IMAGE_READY = "ImageReady"
    """There was nothing to do but to make an image."""
    IMAGE_FAILED = "ImageFailed"
    NO_FREE_PORT = "NoFreePort"
    DOOR_FAILED = "DoorFailed"
    """What lets callers through to its engine can't be started, or has ended."""
    SECRET_MISSING = "SecretMissing"  # noqa: S105
    PATH_UNSEEN = "PathUnseen"
    """Its engine does not see a file or folder that it is told to read."""
    SLOT_FAILED = "SlotFailed"
    SLOT_LOST = "SlotLost"
    VOLUME_IN_USE = "VolumeInUse"
    """Another job writes to its volume."""
    VOLUME_FAILED = "VolumeFailed"
    VOLUME_LOST = "VolumeLost"
    PROLOGUE_FAILED = "PrologueFailed"
    PYTHON_MISSING = "PythonMissing"
    """Said by the batch script, where there is no wrapper; as the next."""
    WRAPPER_CHANGED = "WrapperChanged"
    """What lies in RUN_DIR under the wrapper's name is not what was submitted."""
    PARAMETERS_BAD = "ParametersBad"
    PARAMETERS_TOO_NEW = "ParametersTooNew"
    WRAPPER_ERROR = "WrapperError"
