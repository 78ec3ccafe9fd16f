"""Where the engine runs, and whatever is run beside it: in a container or on the node, under one environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from api.contract.job.parameters import Parameters, Text
from api.contract.job.words import ExitReason
from controller.wrapper import enclosure
from controller.wrapper.address import EngineAddress
from controller.wrapper.files import say
from controller.wrapper.process import Child
from controller.wrapper.report import FailedError
from controller.wrapper.sandbox import command, environment
from controller.wrapper.sandbox.command import Folders
from controller.wrapper.sandbox.environment import Runtime


class Place:
    """One engine's surroundings, once its address is known. Raises `FailedError` if its home can't be made."""

    def __init__(
        self,
        parameters: Parameters,
        image: Path | None,
        *,
        files: Path,
        scratch: Path,
        address: EngineAddress,
        secrets: Mapping[str, str],
    ) -> None:
        self._parameters = parameters
        self._image = image
        self._namespaces = 0 if image is None else enclosure.kinds_for(parameters.apptainer)
        self.folder = scratch
        cache = make_cache(parameters.model_cache)
        self._folders = Folders(
            scratch,
            files if parameters.files else None,
            address.socket.parent if address.socket is not None else None,
            cache,
        )
        self._runtime = Runtime(
            port=address.port,
            socket=_seen(address.socket, command.SOCKET_FOLDER, image),
            host=address.host,
            files=str(files) if image is None else command.RECIPE_FOLDER,
        )
        given = environment.engine_variables(parameters, secrets, self._runtime, os.environ)
        self._variables = {**environment.for_models(cache), **given}
        self._home = scratch / "home" if parameters.home is None else Path(parameters.home)
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FailedError(
                ExitReason.WRAPPER_ERROR, f"cannot make the home {self._home}: {error.strerror}"
            ) from error

    def start(self, texts: Sequence[Text], output: int | None = None) -> Child:
        """Run these words here; raises `OSError` if that can't be started."""
        arguments = self.arguments(texts)
        return Child(arguments, self.environment(), self.folder, output, namespaces=self._namespaces)

    def arguments(self, texts: Sequence[Text]) -> list[str]:
        """Return the command line that runs these words here. No secret is in it."""
        words = [self._runtime.join(text) for text in texts]
        if self._image is None:
            return words
        return command.in_container(
            self._parameters,
            self._image,
            words,
            folders=self._folders,
            home=self._variables.get("HOME"),
            job=os.environ,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment that it is run under; the secrets are in it."""
        if self._image is None:
            return environment.for_node(self._variables, os.environ, str(self._home))
        return environment.for_container(self._variables, os.environ, self.folder)


def make_cache(folder: str | None) -> Path | None:
    """Make the folder of downloaded models, for its owner alone; return it, `None` where it can't be had."""
    if folder is None:
        return None
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        say(f"cannot make {folder} (models.cache): {error.strerror}; what is downloaded ends with the job")
        return None
    return Path(folder)


def _seen(socket: Path | None, folder: str, image: Path | None) -> str | None:
    """Return a socket's path as the engine sees it."""
    if socket is None:
        return None
    return str(socket) if image is None else f"{folder}/{socket.name}"
