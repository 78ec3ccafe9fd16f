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


def test_a_job_gets_what_makes_module_where_a_login_shell_has_made_it() -> None:
    modules = {
        "BASH_ENV": "/usr/share/lmod/lmod/init/bash",
        "BASH_FUNC_module%%": '() {  eval $($LMOD_CMD bash "$@")\n}',
        "BASH_FUNC_ml%%": '() {  module ml "$@"\n}',
        "BASH_FUNC__module_raw%%": '() {  eval `/usr/bin/tclsh modulecmd.tcl bash "$@"`\n}',
        "BASH_FUNC_module()": "() {  :\n}",
        "LMOD_CMD": "/usr/share/lmod/lmod/libexec/lmod",
        "MODULEPATH": "/shared/modules",
        "MODULESHOME": "/usr/share/modules",
        "MODULES_CMD": "/usr/lib/modulecmd.tcl",
    }
    others = {
        "BASH_FUNC_which%%": "() {  :\n}",
        "LOADEDMODULES": "gcc/13",
        "_LMFILES_": "/shared/modules/gcc/13",
        "_ModuleTable001_": "X01vZHVsZV",
        "MODULEPATH_OF_MINE": "/x",
    }
    found = submitting_environment(BASE | modules | others)
    assert {name: value for name, value in found.items() if name in modules | others} == modules


def test_the_given_environment_is_left_alone() -> None:
    before = dict(BASE)
    reading_environment(BASE, "/a", "/b")
    submitting_environment(BASE, "/a", "/b")
    assert before == BASE
