"""`python3 wrapper.pyz JOB_FOLDER [PROLOGUE_CODE]`: claim the attempt, run its engine, say how it ended.

`python3 wrapper.pyz door DESCRIPTOR` is the process of a job's door.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from api.contract.job.folder import PARAMETERS
from api.contract.job.words import ExitReason, Step
from controller.wrapper import parameters
from controller.wrapper.door.opening import COMMAND
from controller.wrapper.files import remove, say
from controller.wrapper.locks import claim
from controller.wrapper.logs.output import Output, bounded
from controller.wrapper.logs.reading import Logs
from controller.wrapper.logs.telling import reason
from controller.wrapper.process import adopt_orphans
from controller.wrapper.report import Ending, FailedError, Report
from controller.wrapper.sandbox.scratch import scratch
from controller.wrapper.signals import Signals, StoppedError
from controller.wrapper.stopping import stop_reason
from controller.wrapper.supervisor import Supervisor


def main(arguments: Sequence[str]) -> int:
    """Return the engine's exit code; 0 without a trace for a job that has no right to run."""
    if arguments[0] == COMMAND:
        from controller.wrapper.door import serve  # noqa: PLC0415 - a Python without `ssl` runs jobs without a door

        return serve.main(int(arguments[1]))
    folder = Path(arguments[0]).resolve()
    prologue_code = int(arguments[1]) if len(arguments) > 1 else 0
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        say("this job was requeued: its attempt is over")
        return 0
    signals = Signals()
    adopt_orphans()
    try:
        job_id = int(os.environ["SLURM_JOB_ID"])
        claim.take(folder, job_id)
    except (KeyError, ValueError):
        say("SLURM_JOB_ID is not set: this runs inside a Slurm job only")
        return 2
    except claim.ClaimLostError as error:
        say(str(error))
        return 0
    except claim.NoClaimError as error:
        say(str(error))
        return 1
    report = Report(folder)
    signals.before_waiting = report.sign
    ending = _run(folder, job_id, prologue_code, report, signals)
    remove(folder / PARAMETERS)
    report.end(ending)
    return ending.code


def _run(folder: Path, job_id: int, prologue_code: int, report: Report, signals: Signals) -> Ending:
    """Do what is between the claim and the last word; whatever goes wrong becomes an ending."""
    try:
        report.step(Step.CLAIMED)
        if prologue_code != 0:
            raise FailedError(
                ExitReason.PROLOGUE_FAILED, f"the prologue ended with {prologue_code}\n{_last_lines(folder)}"
            )
        asked = parameters.read(folder / PARAMETERS)
        remove(folder / PARAMETERS)  # it holds the secret, and we may be killed at any moment
        signals.expect_warning_after(asked.warned_after)
        report.digest, report.lane = asked.digest, asked.lane
        report.door = None if asked.door is None else asked.door.id
        with bounded(folder, asked.log_bytes) as output, scratch(job_id) as room:
            signals.before_waiting = lambda: _look_after(report, output)
            return Supervisor(folder, asked, room, output, report, signals).run()
    except FailedError as failure:
        say(failure.ending.message)
        return failure.ending
    except StoppedError as stopped:
        code = 128 + (signals.stop or 0)
        return Ending(code, stop_reason(signals), f"stopped by {stopped} before the engine was started")
    except Exception as error:
        say(traceback.format_exc())
        return Ending(1, ExitReason.WRAPPER_ERROR, f"{type(error).__name__}: {error}")


def _look_after(report: Report, output: Output) -> None:
    report.sign()
    output.tend()


def _last_lines(folder: Path) -> str:
    return reason(Logs(folder, whole=True).lines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
