#!/bin/bash
# launch.sh JOB_FOLDER WRAPPER PYTHON: the batch script of every job. Fixed text: what varies is in JOB_FOLDER's files.
# Slurm runs a copy of it from a spool folder, with nothing but its own variables set.

# an administrator's requeue runs the script again: that attempt is over
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || { echo "launch: this job was requeued: its attempt is over" >&2; exit 0; }

readonly af_job=$1 af_wrapper=$2 af_python=$3
[ -n "$PATH" ] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# the time warning must not end us before the wrapper listens for it
trap '' USR1

# become the wrapper, so that Slurm's signals reach it
af_begin() {
  trap - EXIT
  exec "$af_python" -I -X utf8 "$af_wrapper" "$af_job" "$1"
}

# the site's own shell text (e.g. `module load apptainer`); it may fail, or even exit
if [ -e "$af_job/prologue.sh" ]; then
  trap 'af_begin "$?"' EXIT
  trap 'trap - EXIT; exit 143' TERM INT HUP
  # shellcheck source=/dev/null
  . "$af_job/prologue.sh"
  af_begin "$?"
fi
af_begin 0
