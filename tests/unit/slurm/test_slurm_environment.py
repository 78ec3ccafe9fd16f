import pytest

from controller.slurm.environment import reading_environment, submitting_environment

BASE = {
    "PATH": "/usr/bin",
    "HOME": "/home/op",
    "https_proxy": "http://proxy:3128",
    "DATABASE_URL": "postgresql://user:password@host/db",
    "APPTAINER_BIND": "/secret",
    "LC_ALL": "de_DE.UTF-8",
    "TZ": "Europe/Luxembourg",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SBATCH_ARRAY_INX": "1-3",
    "SBATCH_EXPORT": "NONE",
    "SQUEUE_STATES": "RUNNING",
    "SQUEUE_FORMAT": "%i",
    "SACCT_FORMAT": "jobid",
    "SCANCEL_STATE": "PENDING",
    "SCANCEL_INTERACTIVE": "1",
    "SINFO_PARTITION": "x",
    "SLURM_CLUSTERS": "other",
    "SLURM_EXIT_ERROR": "7",
    "SLURM_JOB_NAME": "interactive",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_HINT": "nomultithread",
}
FAMILIES = ("SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SLURM_")


@pytest.mark.parametrize("make", [reading_environment, submitting_environment])
def test_nothing_of_slurm_s_but_where_its_configuration_is(make) -> None:
    left = {name for name in make(BASE) if name.startswith(FAMILIES)}
    assert left - {"SLURM_TIME_FORMAT"} == {"SLURM_CONF"}
    assert make(BASE)["SLURM_CONF"] == "/etc/slurm/slurm.conf"
    assert make(BASE, slurm_conf="/other.conf")["SLURM_CONF"] == "/other.conf"
    assert "SLURM_CONF" not in make({"PATH": "/bin"})


@pytest.mark.parametrize("make", [reading_environment, submitting_environment])
def test_english_and_a_path(make) -> None:
    assert make(BASE)["LC_ALL"] == "C.UTF-8"
    assert make(BASE, bin_dir="/opt/slurm/bin")["PATH"] == "/opt/slurm/bin:/usr/bin"
    assert make({})["PATH"] == "/usr/local/bin:/usr/bin:/bin"


def test_times_come_as_seconds() -> None:
    environment = reading_environment(BASE)
    assert (environment["SLURM_TIME_FORMAT"], environment["TZ"]) == ("%s", "UTC0")


def test_a_job_gets_only_what_is_listed() -> None:
    assert submitting_environment(BASE) == {
        "PATH": "/usr/bin",
        "HOME": "/home/op",
        "https_proxy": "http://proxy:3128",
        "LC_ALL": "C.UTF-8",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
    }


def test_the_given_environment_is_left_alone() -> None:
    before = dict(BASE)
    reading_environment(BASE, "/a", "/b")
    submitting_environment(BASE, "/a", "/b")
    assert before == BASE
