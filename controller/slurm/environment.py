"""The environment of Slurm's commands, made from one that is given: pure.

Slurm reads most of its options from the environment too (INPUT ENVIRONMENT VARIABLES of sbatch(1), squeue(1),
sacct(1), sinfo(1), scancel(1)): what happens to be set where the controller was started must change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FAMILIES = ("SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_", "SALLOC_", "SRUN_", "SLURM_", "SLURMD_")

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

FOR_JOBS = frozenset(
    {
        "HOME", "USER", "LOGNAME", "SHELL", "LD_LIBRARY_PATH", "LANG",
        "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
        "SSL_CERT_FILE", "SSL_CERT_DIR",
    }
)  # fmt: skip
"""What of the given environment a job gets. All else stays behind: the environment of a batch job is kept in
Slurm's own files, and the controller's may hold a database's password."""

FOR_MODULES = re.compile(
    r"BASH_ENV|BASH_FUNC_(module|ml|_module_raw|scl)(%%|\(\))"
    r"|MODULEPATH|MODULEPATH_ROOT|MODULESHOME|MODULERCFILE|(LMOD|MODULES)_\w+"
)
"""Besides, what a prologue needs for `module`, where a login shell has made it: its functions, as bash exports them,
and where modules lie (Lmod; Environment Modules 4 and 5). Which of them are loaded is no part: a job begins with none.
"""


def reading_environment(base: Mapping[str, str], slurm_conf: str = "", bin_dir: str = "") -> dict[str, str]:
    """Return the environment for the commands that read or cancel. Empty strings: as inherited.

    Times come as Unix seconds: squeue and sacct hand SLURM_TIME_FORMAT to strftime(3) (squeue(1); measured).
    """
    kept = {name: value for name, value in base.items() if not name.startswith(FAMILIES)}
    return kept | _common(base, slurm_conf, bin_dir) | {"SLURM_TIME_FORMAT": "%s", "TZ": "UTC0"}


def submitting_environment(base: Mapping[str, str], slurm_conf: str = "", bin_dir: str = "") -> dict[str, str]:
    """Return the environment for sbatch, which is the job's too (`--export=ALL`)."""
    given = {name: value for name, value in base.items() if name in FOR_JOBS or FOR_MODULES.fullmatch(name)}
    return given | _common(base, slurm_conf, bin_dir)


def _common(base: Mapping[str, str], slurm_conf: str, bin_dir: str) -> dict[str, str]:
    """Return the configuration file, given or inherited; where the commands are; a locale for English and UTF-8."""
    common = {"LC_ALL": "C.UTF-8", "PATH": ":".join(filter(None, (bin_dir, base.get("PATH", DEFAULT_PATH))))}
    if conf := slurm_conf or base.get("SLURM_CONF"):
        common["SLURM_CONF"] = conf
    return common
