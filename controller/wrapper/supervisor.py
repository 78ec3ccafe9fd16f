"""One engine's life: image, door, address, start, service, end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from api.contract.job import namespaces
from api.contract.job.folder import RECIPE_FILES
from api.contract.job.parameters import Parameters
from api.contract.job.words import ExitReason, Network, Step
from controller.wrapper import ports
from controller.wrapper.address import EngineAddress, asks_for
from controller.wrapper.check import HealthCheck
from controller.wrapper.door.loopback import LoopbackPort
from controller.wrapper.door.opening import OpenDoor, Premises
from controller.wrapper.files import say, write_new
from controller.wrapper.image import Images, cannot_start
from controller.wrapper.locks import slot
from controller.wrapper.locks.volumes import HeldVolumes, held
from controller.wrapper.logs import telling
from controller.wrapper.logs.output import Output
from controller.wrapper.logs.reading import Logs
from controller.wrapper.process import Child
from controller.wrapper.redaction import Redaction
from controller.wrapper.report import Ending, FailedError, Report
from controller.wrapper.sandbox import environment
from controller.wrapper.sandbox.paths import require_paths
from controller.wrapper.sandbox.place import Place
from controller.wrapper.sandbox.scratch import SOCKET, socket_folder
from controller.wrapper.signals import Signals
from controller.wrapper.stopping import Stop

PORT_TRIES = 5
PORT_WINDOW = 3600.0
"""Seconds after its start within which an engine may find its port taken: vLLM listens once it has loaded."""

QUICK_LOOKS = 60.0
"""Seconds during which a starting engine is looked at every `QUICK`, later every `SLOW`; once it serves, `CALM`."""
QUICK, SLOW, CALM = 0.25, 1.0, 5.0

if TYPE_CHECKING:
    from controller.wrapper.stopping import Lost


@dataclass(frozen=True)
class Watched:
    """An engine that runs, and what runs beside it."""

    child: Child
    address: EngineAddress
    door: OpenDoor | None
    check: HealthCheck | None
    logs: Logs


class Supervisor:
    """What one job needs to run its engine."""

    def __init__(
        self,
        folder: Path,
        parameters: Parameters,
        scratch: Path,
        output: Output,
        report: Report,
        signals: Signals,
    ) -> None:
        self._folder = folder
        self._parameters = parameters
        self._output = output
        self._scratch = scratch
        self._report = report
        self._signals = signals
        self._secrets: Mapping[str, str] = {}
        self._redact = Redaction(())

    def run(self) -> Ending:
        """Run the engine to its end; raises `FailedError` or `StoppedError` where it comes to none."""
        parameters = self._parameters
        self._secrets = environment.read_secrets(parameters)
        self._redact = Redaction(self._secrets.values())
        files = self._write_files()
        image = None
        if parameters.image is None:
            self._report.image = ""
        else:
            images = Images(Path(parameters.image_cache), parameters.apptainer, self._report, self._signals)
            image = images.prepare(parameters.image, self._output, self._scratch, refresh=parameters.refresh)
        if not parameters.command:
            return Ending(0, ExitReason.IMAGE_READY, str(image))
        job_id = int(os.environ["SLURM_JOB_ID"])
        me = parameters.token, job_id, self._report, self._signals
        own_slot = slot.held(self._folder, parameters.lane, *me, alone=parameters.alone)
        with own_slot as place, held(parameters.volumes, *me) as volumes:
            return self._try_addresses(image, files, lambda: _lost(place, volumes))

    def _try_addresses(self, image: Path | None, files: Path, lost: Lost) -> Ending:
        tried: set[int] = set()
        with self._premises() as premises:
            if self._parameters.network is Network.PRIVATE:
                self._report.network_refusal = namespaces.leave_network()
            while len(tried) < PORT_TRIES:
                address = self._address(premises, tried)
                ending = self._run_engine(image, files, address, premises, lost)
                if ending is not None:
                    return ending
                say(f"port {address.port} was taken meanwhile; trying another")
                tried.add(address.port or 0)
        raise FailedError(ExitReason.NO_FREE_PORT, f"the engine found each of the ports {sorted(tried)} taken")

    @contextlib.contextmanager
    def _premises(self) -> Iterator[Premises | None]:
        parameters = self._parameters
        if parameters.door is None or not parameters.listens:
            yield None
            return
        with ports.listen(parameters.port_range) as entrance, socket_folder(self._scratch) as sockets:
            yield Premises(parameters.door, entrance, sockets, self._folder)

    def _address(self, premises: Premises | None, tried: Collection[int]) -> EngineAddress:
        """Choose where the engine is to listen; raises `FailedError` (`NoFreePort`)."""
        parameters = self._parameters
        if not parameters.listens:
            return EngineAddress()
        if premises is None:
            wanted = parameters.port_range or ports.lasting()
            return EngineAddress(parameters.host, ports.pick(parameters.host, wanted, tried))
        if asks_for(parameters, "socket"):
            return EngineAddress(socket=premises.sockets / SOCKET)
        port = ports.pick(ports.LOOPBACK, ports.lasting(), tried)
        return EngineAddress(port=port, own=LoopbackPort(port, os.getpid()))

    def _write_files(self) -> Path:
        folder = self._folder / RECIPE_FILES
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for name, text in self._parameters.files.items():
                write_new(folder / name, text)
        except OSError as error:
            raise FailedError(ExitReason.WRAPPER_ERROR, f"cannot write {folder}: {error.strerror}") from error
        return folder

    def _run_engine(
        self, image: Path | None, files: Path, address: EngineAddress, premises: Premises | None, lost: Lost
    ) -> Ending | None:
        """Run it once; `None`: its port was taken after all."""
        self._signals.check()
        self._report.health(None)
        self._report.step(Step.STARTING, port=address.port if premises is None else premises.port)
        logs = self._output.logs()
        place = Place(
            self._parameters, image, files=files, scratch=self._scratch, address=address, secrets=self._secrets
        )
        require_paths(place, self._parameters, self._signals)
        with contextlib.ExitStack() as ends:
            door = None
            if premises is not None:
                door = OpenDoor(premises, address.port, address.socket, self._signals)
                ends.callback(door.close)
            child = self._spawn(place, ExitReason.ENGINE_EXITED if image is None else ExitReason.IMAGE_FAILED)
            ends.callback(child.end)
            check = self._check(place)
            if check is not None:
                ends.callback(check.close)
            watched = Watched(child, address, door, check, logs)
            stopped = self._watch(watched, lambda: lost() or (door.ended() if door is not None else None))
            code = child.exit_code()
            if door is not None and code is not None:
                door.finish()
        if stopped is not None:
            return stopped
        lines = [self._redact(line) for line in logs.lines()]
        if address.port is not None and code != 0 and child.age < PORT_WINDOW and telling.port_was_taken(lines):
            return None
        return Ending(code or 0, ExitReason.ENGINE_EXITED, _by_signal(code) + telling.reason(lines))

    def _check(self, place: Place) -> HealthCheck | None:
        asked = self._parameters.check
        if asked is None:
            return None
        return HealthCheck(
            partial(place.start, asked.command),
            self._signals,
            interval=asked.interval,
            timeout=asked.timeout,
            redact=self._redact,
        )

    def _spawn(self, place: Place, reason: ExitReason) -> Child:
        command = self._parameters.command
        try:
            return place.start(command)
        except OSError as error:
            raise FailedError(reason, cannot_start(place.arguments(command)[0], error)) from error

    def _watch(self, running: Watched, lost: Lost) -> Ending | None:
        """Follow the engine until it ends, or we are told to end it: then how it took that."""
        child, check = running.child, running.check
        serving = warned = False
        if not running.address.exists:
            self._report.step(Step.SERVING, "nothing listens")
            serving = True
        while child.exit_code() is None:
            if self._signals.stop is not None:
                if check is not None:
                    check.close()
                stop = Stop(self._folder, self._parameters, self._report, self._signals)
                return stop.end(child, running.door, running.logs, lost)
            ending = lost()
            if ending is not None:
                return ending
            detail = self._redact(telling.progress(running.logs.new_lines()) or "")
            if not serving and running.address.accepts():
                self._report.step(Step.SERVING, detail)
                serving = True
                if running.door is not None:
                    running.door.serves()
            elif detail and serving:
                self._report.detail(detail)
            elif detail:
                self._report.step(Step.LOADING, detail)
            if self._signals.warned and not warned:
                warned = True
                self._report.detail("time limit near", at_once=True)
            if running.door is not None:
                self._report.empty(running.door.is_empty)
            self._report.catch_up()
            pause = CALM if serving else QUICK if child.age < QUICK_LOOKS else SLOW
            if check is not None and serving:
                self._report.health(check.tend())
                pause = min(pause, check.pause())
            self._signals.wait(pause)
        return None


def _lost(place: slot.HeldSlot, volumes: HeldVolumes) -> Ending | None:
    for reason, lost in ((ExitReason.SLOT_LOST, place.lost()), (ExitReason.VOLUME_LOST, volumes.lost())):
        if lost is not None:
            return Ending(1, reason, lost)
    return None


def _by_signal(code: int | None) -> str:
    if code is None or code <= 128 or code - 128 not in {int(number) for number in signal.Signals}:
        return ""
    return f"killed by {signal.Signals(code - 128).name}\n"
