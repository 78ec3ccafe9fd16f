# One private single-machine Slurm under $D: where things lie, how each daemon is
# started and which processes are its own. Sourced by slurm-up, slurm-down, slurm-ctl.
# shellcheck shell=bash
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# cluster_dir DIR: sets D, RUN (pid files), SOCK (sockets and spool; short)
cluster_dir() {
  D=$(realpath -m "$1")
  [[ $D =~ ^/[A-Za-z0-9_./+-]+$ ]] ||
    die "cannot use the folder $D" "Slurm's configuration takes no blanks or special characters in a path" "" "choose another folder"
  RUN=$D/run LOG=$D/log
  SOCK=$D/run SPOOL=$D/spool
  # A Unix socket's path has 107 characters; slurmstepd's is SPOOL/nodeNN/nodeNN_JOBID.STEPID
  if [ ${#D} -gt 55 ]; then
    SOCK=/tmp/slurm-$(id -u)-$(printf %s "$D" | cksum | cut -d' ' -f1)
    SPOOL=$SOCK/spool
  fi
  export SLURM_CONF=$D/etc/slurm.conf MYSQL_UNIX_PORT=$SOCK/mysql.sock
}

daemons() {
  local i
  printf 'munged\n'
  [ "$DBD" = 0 ] || printf 'mariadbd\nslurmdbd\n'
  printf 'slurmctld\n'
  for i in $(seq 1 "$NODES"); do echo "slurmd-node$i"; done
}

# is_ours PID COMMAND: runs COMMAND, and was started by start() below for this very D.
# A pid file alone may be stale and name somebody else's process.
is_ours() {
  grep -qsxE -- "$2" "/proc/$1/comm" &&
    grep -qszxF -- "SLURM_LOCAL_DAEMON=$D" "/proc/$1/environ" &&
    [ "/proc/$1/root" -ef / ] # the same path in a chroot is another cluster
}

# pid_of DAEMON: its pid, if it lives
pid_of() {
  local p
  [ -s "$RUN/$1.pid" ] || return 1
  read -r p <"$RUN/$1.pid" || true
  [[ $p =~ ^[0-9]+$ ]] && is_ours "$p" "${1%%-*}" && [ "$(state_of "$p")" != Z ] && echo "$p"
}

state_of() { sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null; }

# wait_for SECONDS WHAT LOGFILE COMMAND...
wait_for() {
  local end=$((SECONDS + $1)) what=$2 log=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] ||
      die "$what does not come up" "$(grep -aiE 'error|fatal' "$log" 2>/dev/null | tail -n 1)" "$log" "read the log; slurm-down $D --wipe removes the cluster for a fresh start"
    sleep .05
  done
}

# with a marker in the environment, by which is_ours knows its own; 9 is slurm-up's lock
launch() { SLURM_LOCAL_DAEMON=$D setsid --fork "$@" </dev/null >>"$LOG/start.log" 2>&1 9>&-; }

mariadb_up() { mariadb --no-defaults --socket="$MYSQL_UNIX_PORT" -e 'select 1'; }
slurmdbd_up() { sacctmgr -n list cluster; }
slurmctld_up() { pid_of slurmctld && scontrol ping | grep 'is UP'; } # no grep -q: with pipefail it may end the pipe too early

# start DAEMON: returns once it answers; one that is merely paused goes on
start() {
  local p
  if p=$(pid_of "$1"); then
    [ "$(state_of "$p")" != T ] || kill -CONT "$p"
    return 0
  fi
  rm -f "$RUN/$1.pid"
  case $1 in
  munged)
    rm -f "$SOCK/munge.sock"
    # --force: a group-writable folder above D (umask 002) is only warned of
    launch munged --foreground --force --key-file="$D/munge/key" --socket="$SOCK/munge.sock" --pid-file="$RUN/munged.pid" \
      --log-file="$D/munge/log" --seed-file="$D/munge/seed" --num-threads=4
    wait_for 15 munged "$LOG/start.log" munge -S "$SOCK/munge.sock" -n
    ;;
  mariadbd)
    # Grants are off: the socket lies in a private folder. The system tables are
    # needed all the same, for slurmdbd's stored procedures.
    mkdir -p -m 700 "$D/tmp" # in a common one two servers remove each other's temporary tables
    if [ ! -e "$D/db/.complete" ]; then
      rm -rf "$D/db"
      mkdir -m 700 "$D/db"
      TMPDIR=$D/tmp mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$D/db" --skip-test-db \
        --auth-root-authentication-method=socket >"$LOG/mariadb-install.log" 2>&1 ||
        die "mariadb-install-db failed" "$(grep -aiE 'error|fatal' "$LOG/mariadb-install.log" | tail -n 1)" "$LOG/mariadb-install.log" "is the disk full? (df -h $D)"
      touch "$D/db/.complete"
    fi
    TMPDIR=$D/tmp launch mariadbd --no-defaults --user="$(id -un)" --datadir="$D/db" --socket="$MYSQL_UNIX_PORT" --pid-file="$RUN/mariadbd.pid" \
      --skip-networking --skip-grant-tables --skip-log-bin --innodb-buffer-pool-size=64M --innodb-log-file-size=16M \
      --innodb-flush-log-at-trx-commit=2 --innodb-lock-wait-timeout=900 --log-error="$LOG/mariadbd.log"
    wait_for 60 mariadbd "$LOG/mariadbd.log" mariadb_up
    ;;
  slurmdbd)
    launch slurmdbd
    wait_for 60 slurmdbd "$LOG/slurmdbd.log" slurmdbd_up
    ;;
  slurmctld)
    launch slurmctld
    wait_for 30 slurmctld "$LOG/slurmctld.log" slurmctld_up
    ;;
  slurmd-node*)
    mkdir -p "$SPOOL/${1#slurmd-}"
    launch slurmd -N "${1#slurmd-}"
    wait_for 15 "$1" "$LOG/$1.log" pid_of "$1"
    ;;
  *) die "no daemon $1" "" "" "one of: $(daemons | paste -sd' ')" ;;
  esac
}

# stop DAEMON [SIGNAL]: returns once it is gone
stop() {
  local p sig=${2:-TERM} i
  p=$(pid_of "$1") || return 0
  kill -"$sig" "$p" 2>/dev/null || return 0
  kill -CONT "$p" 2>/dev/null || true # a paused one would never see the signal
  for ((i = 0; i < 200; i++)); do
    is_ours "$p" "${1%%-*}" && [ "$(state_of "$p")" != Z ] || return 0
    sleep .05
  done
  say "$1 (pid $p) did not stop within 10 s of SIG$sig: killing it"
  kill -KILL "$p" 2>/dev/null || true
}

# Whatever else is this cluster's: daemons without a pid file (yet), slurmstepd, job
# processes (their environment names D's slurm.conf and a job) and all their children.
leftovers() {
  local f p pp comm stat
  local -A mine=() parent=()
  while read -r f; do
    p=${f#/proc/} p=${p%/environ}
    [ "/proc/$p/root" -ef / ] || continue
    comm=$(cat "/proc/$p/comm" 2>/dev/null) || continue
    case $comm in
    munged | mariadbd | slurmdbd | slurmctld | slurmd) ! grep -qszxF -- "SLURM_LOCAL_DAEMON=$D" "$f" || mine[$p]=1 ;;
    esac
    if grep -qszxF -- "SLURM_CONF=$D/etc/slurm.conf" "$f" && grep -qsz '^SLURM_JOB_ID=' "$f"; then mine[$p]=1; fi
  done < <(grep -slzxF -e "SLURM_LOCAL_DAEMON=$D" -e "SLURM_CONF=$D/etc/slurm.conf" /proc/[0-9]*/environ)
  # these two write their title over their environment, but stay in the log's folder
  while read -r f; do
    p=${f#/proc/} p=${p%/comm}
    if [ "/proc/$p/cwd" -ef "$LOG" ]; then mine[$p]=1; fi
  done < <(grep -slxE 'slurmstepd|slurmscriptd' /proc/[0-9]*/comm)
  # never the caller's own line of processes: slurm-down may itself run inside a job's shell
  p=$$
  while [ "${p:-0}" -gt 1 ]; do
    unset "mine[$p]"
    p=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status" 2>/dev/null)
  done
  [ ${#mine[@]} -gt 0 ] || return 0
  for f in /proc/[0-9]*/stat; do
    { read -r stat <"$f"; } 2>/dev/null || continue # it may have ended
    p=${f#/proc/} p=${p%/stat}
    read -r _ pp _ <<<"${stat##*) }"
    parent[$p]=$pp
  done
  local more=1
  while [ $more = 1 ]; do # a container's processes carry nothing of Slurm's but their parents
    more=0
    for p in "${!parent[@]}"; do
      if [ -z "${mine[$p]:-}" ] && [ -n "${mine[${parent[$p]}]:-}" ]; then mine[$p]=1 more=1; fi
    done
  done
  printf '%s\n' "${!mine[@]}"
}

load_settings() {
  # shellcheck source=/dev/null
  [ ! -e "$D/settings" ] || . "$D/settings"
}
