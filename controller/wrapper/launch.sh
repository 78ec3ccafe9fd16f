#!/bin/bash
# launch.sh JOB_FOLDER WRAPPER PYTHON: the batch script of every job. Fixed text: what varies is in JOB_FOLDER's files.
# Slurm runs a copy of it from a spool folder, with its own variables and few others set (controller.slurm.environment).

# an administrator's requeue runs the script again: that attempt is over
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || { echo "launch: this job was requeued: its attempt is over" >&2; exit 0; }

readonly af_job=$1 af_wrapper=$2 af_python=$3
[ -n "$PATH" ] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# the time warning must not end us before the wrapper listens for it
trap '' USR1

# include find_python

# af_begin CODE: become the wrapper, so that Slurm's signals reach it; CODE is how the prologue ended
af_begin() {
  trap - EXIT
  set +eu
  find_python "$af_python"
  [ -n "$af_found" ] || af_give_up "$1" PythonMissing "No Python 3.9 or later with ctypes, json and ssl was found" "$(af_search)" \
    "Set slurm.python to one that every node has, or load one by slurm.prologue."
  af_is_whole || af_give_up "$1" WrapperChanged "$af_wrapper is not what was submitted, or can't be read," \
    "Its SHA-256 must begin as its name says. See who may write there: ai-factory doctor"
  [ -z "$af_tried$af_absent" ] || echo "launch: $(af_search) Taking $af_found." >&2
  exec "$af_found" -I -X utf8 "$af_wrapper" "$af_job" "$1"
}

af_search() { echo "slurm.python is $af_python. Found: ${af_tried:-none}. Not found: ${af_absent:-none}."; }

# af_is_whole: whether the wrapper is the one that was submitted, which its name tells by the beginning of its SHA-256
af_is_whole() {
  local found name=${af_wrapper##*-} PATH=$PATH:/usr/local/bin:/usr/bin:/bin
  found=$(sha256sum <"$af_wrapper") && [ "${found:0:32}" = "${name%.pyz}" ]
}

# af_give_up CODE REASON WHAT WORD…: the wrapper can't be run. So do here what it does: claim the attempt (link(2), see
# claim.py), and only then say how it ended. Who does not get the claim leaves no trace.
af_give_up() {
  local host draft message LC_ALL=C PATH=$PATH:/usr/local/bin:/usr/bin:/bin
  host=$(uname -n)
  message="$3 on $host."
  [ "$1" = 0 ] || message+=" The prologue ended with $1."
  message+=" ${*:4}"
  echo "launch: $message" >&2
  [ -n "$SLURM_JOB_ID" ] || exit 2
  umask 077
  draft=$af_job/.claim.$SLURM_JOB_ID.$host.$$
  printf '{"job_id": %d, "restarts": 0, "host": "%s", "at": %d}' "$SLURM_JOB_ID" "$host" "$(date +%s)" >"$draft" &&
    sync "$draft" || exit 1
  # of an answer that was lost the link itself tells: opened afresh, NFS asks its server
  if ! ln -T "$draft" "$af_job/claim" && [ "$(stat -L -c %h /dev/stdin <"$draft")" != 2 ]; then
    rm -f "$draft"
    [ -e "$af_job/claim" ] && exit 0
    exit 1
  fi
  rm -f "$draft" "$af_job/params.json"
  message=${message//[^ -~]/?} message=${message//\\/\\\\} message=${message//\"/\\\"}
  printf '{"code": 1, "reason": "%s", "message": "%s", "at": %d}' "$2" "$message" "$(date +%s)" \
    >"$af_job/.exit.json.tmp" &&
    sync "$af_job/.exit.json.tmp" && mv -T "$af_job/.exit.json.tmp" "$af_job/exit.json"
  exit 1
}

# the site's own shell text (e.g. `module load apptainer`); it may fail, or even exit
if [ -e "$af_job/prologue.sh" ]; then
  trap 'af_begin "$?"' EXIT
  trap 'trap - EXIT; exit 143' TERM INT HUP
  # include login_profile
  # shellcheck source=/dev/null
  . "$af_job/prologue.sh"
  af_begin "$?"
fi
af_begin 0
