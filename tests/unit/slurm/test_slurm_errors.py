import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.attempt import SendOutcome
from controller.slurm import errors
from controller.slurm.errors import Trouble, diagnose, reading_trouble, send_outcome
from controller.slurm.runner import Completed

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
MUNGE = """sbatch: error: If munged is up, restart with --num-threads=10
sbatch: error: Munge encode failed: Failed to access "/run/m.sock": No such file or directory (Did you start munged?)
sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error
sbatch: error: Batch job submission failed: Protocol authentication error
"""
NO_CONF = """sbatch: error: s_p_parse_file: cannot stat file /n: No such file or directory, retrying in 1sec up to 60sec
sbatch: error: ClusterName needs to be specified
sbatch: fatal: Unable to process configuration file
"""
NO_DATABASE = """sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host:h: \
Connection refused
sacct: error: Sending PersistInit msg: Connection refused
sacct: error: Problem talking to the database: Connection refused
"""


def failed(command: str, exit_code: int | None, stderr: str, stdout: str = "") -> Completed:
    return Completed(argv=(command,), exit_code=exit_code, stdout=stdout, stderr=stderr)


SENT = [
    # what a real Slurm printed, and what it means
    (255, "sbatch: error: Invalid --time specification", SendOutcome.REJECTED, "InvalidTime"),
    (255, "sbatch: unrecognized option '--nope'\nTry \"sbatch --help\"", SendOutcome.REJECTED, "UnrecognizedOption"),
    (255, "sbatch: error: Invalid --mail-type specification", SendOutcome.REJECTED, "InvalidOption"),
    (1, "sbatch: error: invalid partition specified: nope\n" + FAILED + "Invalid partition name specified",
     SendOutcome.REJECTED, "InvalidPartition"),
    (1, FAILED + "Invalid account or account/partition combination specified", SendOutcome.REJECTED, "InvalidAccount"),
    (1, FAILED + "Invalid qos specification", SendOutcome.REJECTED, "InvalidQos"),
    (1, FAILED + "Invalid feature specification", SendOutcome.REJECTED, "InvalidConstraint"),
    (1, FAILED + "Requested reservation is invalid", SendOutcome.REJECTED, "InvalidReservation"),
    (1, FAILED + "Invalid node name specified", SendOutcome.REJECTED, "TooBig"),
    (1, FAILED + "Requested node configuration is not available", SendOutcome.REJECTED, "TooBig"),
    (1, FAILED + "Invalid license specification", SendOutcome.REJECTED, "InvalidOption"),
    (1, FAILED + "Pathname of a file, directory or other parameter too long", SendOutcome.REJECTED, "InvalidOption"),
    (1, "sbatch: error: Invalid generic resource (gres) specification", SendOutcome.REJECTED, "InvalidGres"),
    (1, "sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.",
     SendOutcome.REJECTED, "InvalidOption"),
    (1, "sbatch: error: QOSMaxWallDurationPerJobLimit\n" + POLICY, SendOutcome.REJECTED, "OverLimit"),
    (1, "sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + POLICY, SendOutcome.DEFERRED, "SubmitLimit"),
    (1, "sbatch: error: AssocMaxSubmitJobLimit\n" + POLICY, SendOutcome.DEFERRED, "SubmitLimit"),
    (1, "sbatch: error: AssocGrpSubmitJobsLimit\n" + POLICY, SendOutcome.DEFERRED, "SubmitLimit"),
    (1, "sbatch: error: QOSGrpSubmitJobsLimit\n" + POLICY, SendOutcome.DEFERRED, "SubmitLimit"),
    (255, 'sbatch: error: unrecognized --hint argument "nonsense", see --hint=help', SendOutcome.REJECTED,
     "InvalidOption"),
    (1, POLICY, SendOutcome.DEFERRED, "PolicyLimit"),
    (1, FAILED + "Required partition not available (inactive or drain)", SendOutcome.DEFERRED, "NotAvailableNow"),
    (1, "sbatch: error: Unable to open file /x/job.sh", SendOutcome.DEFERRED, "ScriptUnreadable"),
    (1, FAILED + "I/O error writing script/environment to file", SendOutcome.DEFERRED, "SlurmDiskFull"),
    (1, "sbatch: error: say a project\nsbatch: error: cli_filter plugin terminated with error",
     SendOutcome.REJECTED, "RefusedBySite"),
    (1, FAILED + "Unable to contact slurm controller (connect failure)", SendOutcome.UNKNOWN, "SlurmUnreachable"),
    (1, FAILED + "Socket timed out on send/recv operation", SendOutcome.UNKNOWN, "SlurmTimeout"),
    (1, FAILED + "Zero Bytes were transmitted or received", SendOutcome.UNKNOWN, "SlurmTimeout"),
    (1, 'sbatch: error: slurm_set_addr: Unable to resolve "head1"\n'
     "sbatch: error: Unable to establish control machine address", SendOutcome.UNKNOWN, "SlurmUnreachable"),
    (1, FAILED + "Unable to contact slurm controller (receive failure)", SendOutcome.UNKNOWN, "SlurmTimeout"),
    (1, MUNGE, SendOutcome.UNKNOWN, "MungeDown"),
    (1, NO_CONF, SendOutcome.UNKNOWN, "SlurmNotConfigured"),
    (1, "sbatch: fatal: Could not establish a configuration source", SendOutcome.UNKNOWN, "SlurmNotConfigured"),
    (1, "sbatch: error: please name a project\n" + FAILED + "Unspecified error", SendOutcome.UNKNOWN, "RefusedBySite"),
    (1, "", SendOutcome.UNKNOWN, "SlurmFailed"),
    (-9, "", SendOutcome.UNKNOWN, "SlurmFailed"),
    (None, "", SendOutcome.UNKNOWN, "SlurmTimeout"),
    # killed while it was trying again
    (None, "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", SendOutcome.UNKNOWN,
     "SlurmTimeout"),
    (None, NO_CONF.splitlines()[0], SendOutcome.UNKNOWN, "SlurmNotConfigured"),
    # refused at first, then open
    (1, "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.\n" + FAILED
     + "Socket timed out on send/recv operation", SendOutcome.UNKNOWN, "SlurmTimeout"),
    (1, "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.\n" + FAILED + "Strange",
     SendOutcome.UNKNOWN, "SlurmFailed"),
    # what was asked for, echoed
    (1, "sbatch: error: invalid partition specified: munge encode\n" + FAILED + "Invalid partition name specified",
     SendOutcome.REJECTED, "InvalidPartition"),
]  # fmt: skip


@pytest.mark.parametrize(("exit_code", "stderr", "outcome", "reason"), SENT)
def test_submissions(exit_code: int | None, stderr: str, outcome: SendOutcome, reason: str) -> None:
    diagnosis = diagnose(failed("sbatch", exit_code, stderr))
    assert (send_outcome(diagnosis), diagnosis.reason) == (outcome, reason)
    assert diagnosis.message.startswith("sbatch: ")
    assert diagnosis.message.isprintable()


@given(st.text())
def test_a_killed_submission_is_never_taken_for_refused(stderr: str) -> None:
    assert send_outcome(diagnose(failed("sbatch", None, stderr))) is SendOutcome.UNKNOWN


@given(st.text(st.characters(categories=["Ll", "Zs", "Po"]), max_size=60))
def test_an_open_outcome_stays_open_whatever_else_is_said(noise: str) -> None:
    stderr = f"sbatch: error: Invalid qos specification {noise}\n{FAILED}Socket timed out on send/recv operation"
    assert send_outcome(diagnose(failed("sbatch", 1, stderr))) is SendOutcome.UNKNOWN


def test_messages_say_what_slurm_said_and_what_to_change() -> None:
    message = diagnose(failed("sbatch", 1, SENT[3][1])).message
    assert "invalid partition specified: nope" in message
    assert "change `partition`" in message


def test_a_connection_closed_without_a_word_may_be_munges_doing() -> None:
    """So Slurm 22.05 tells of a munge key that is not the cluster's."""
    told = diagnose(failed("sinfo", 1, "slurm_load_partitions: Zero Bytes were transmitted or received"))
    assert (told.reason, "munge -n | ssh HOST unmunge" in told.remedy) == ("SlurmTimeout", True)
    asked = diagnose(failed("sinfo", 1, "slurm_load_partitions: Socket timed out on send/recv operation"))
    assert "munge" not in asked.remedy


def test_a_slurmctld_whose_host_has_no_name_here() -> None:
    said = (
        'squeue: error: slurm_set_addr: Unable to resolve "head1"\nsqueue: error: Unable to establish control machine'
    )
    told = diagnose(failed("squeue", 1, f"{said} address\nslurm_load_jobs error: No error"))
    assert (told.trouble, told.reason) == (Trouble.TRANSIENT, "SlurmUnreachable")
    assert "getent hosts NAME" in told.remedy


@pytest.mark.parametrize(
    ("command", "exit_code", "stderr", "trouble", "reason"),
    [
        ("squeue", 1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
         Trouble.TRANSIENT, "SlurmUnreachable"),
        ("squeue", 1, "slurm_load_jobs error: Socket timed out on send/recv operation",
         Trouble.AMBIGUOUS, "SlurmTimeout"),
        ("squeue", None, "", Trouble.AMBIGUOUS, "SlurmTimeout"),
        ("sinfo", 1, MUNGE.replace("sbatch", "sinfo"), Trouble.TRANSIENT, "MungeDown"),
        ("sacct", 1, NO_DATABASE, Trouble.TRANSIENT, "AccountingDown"),
        ("squeue", 1, "squeue: error: Rate limit exceeded, please retry momentarily",
         Trouble.TRANSIENT, "SlurmRateLimited"),
        ("scancel", 1, "scancel: error: Kill job error on job id 4: Access/permission denied",
         Trouble.PERMANENT, "PermissionDenied"),
    ],
)  # fmt: skip
def test_readings(command: str, exit_code: int | None, stderr: str, trouble: Trouble, reason: str) -> None:
    diagnosis = reading_trouble(failed(command, exit_code, stderr), empty=True)
    assert diagnosis is not None
    assert (diagnosis.trouble, diagnosis.reason) == (trouble, reason)


def test_a_clean_answer_is_good_even_if_empty() -> None:
    assert reading_trouble(failed("squeue", 0, ""), empty=True) is None


def test_an_error_makes_an_empty_answer_worthless_in_spite_of_exit_code_0() -> None:
    strange = failed("squeue", 0, "squeue: error: a plugin of the site complains")
    assert reading_trouble(strange, empty=True) is not None
    assert reading_trouble(strange, empty=False) is None
    assert reading_trouble(failed("squeue", 1, ""), empty=False) is not None


@pytest.mark.parametrize("text", ["Invalid job id specified", "Job/step already completing or completed"])
def test_a_job_that_is_gone_needs_no_cancel(text: str) -> None:
    assert errors.cancel_trouble(failed("scancel", 1, f"scancel: error: Kill job error on job id 9: {text}")) is None
    assert errors.cancel_trouble(failed("scancel", None, text)) is not None


def test_a_site_without_accounting() -> None:
    assert errors.is_without_accounting(failed("sacct", 1, "Slurm accounting storage is disabled\n"))
    assert not errors.is_without_accounting(failed("sacct", 1, NO_DATABASE))
