#!/bin/bash
# Says what a job sees of RUN_DIR, the clock, Python, Apptainer and its node, and listens on a port for a minute or
# until somebody came. Arguments: folder, name, python, apptainer, prologue, lowest and highest port (0: any), and
# files of recipes. Exit codes tell what no file can: 73 there is no RUN_DIR here, 74 it can't be written, 75 it is
# another one.
[ -n "$PATH" ] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
readonly af_folder=$1 af_name=$2 af_python=$3 af_apptainer=$4 af_prologue=$5 af_low=$6 af_high=$7
af_files=("${@:8}")

# include find_python

af_listen='
import errno, os, socket, sys
name, low, high = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = []
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    try:
        rows += open(table).read().splitlines()[1:]
    except OSError:
        pass
listening = {int(row.split()[1].rpartition(":")[2], 16) for row in rows if row.split()[3] == "0A"}
taken = sorted(listening & set(range(low, high + 1)))
chosen, problem = None, "denied"
for port in range(low, high + 1):
    chosen = socket.socket()
    try:
        chosen.bind(("", port))
        break
    except OSError as error:
        chosen = None
        if error.errno == errno.EADDRINUSE:
            problem = "used"
with open(name + ".draft", "w") as file:
    print(chosen.getsockname()[1] if chosen else problem, len(taken), *taken[:3], file=file)
if chosen:
    chosen.listen()
os.rename(name + ".draft", name)
if chosen:
    chosen.settimeout(60)
    caller, _ = chosen.accept()
    caller.settimeout(5)
    caller.recv(1)  # who ends a connection first keeps its port for a minute: that is to be the caller
'

# af_report CODE: say everything; CODE is how the prologue ended
af_report() {
  local listener port file suid apptainer took=$((SECONDS - af_began))
  trap - EXIT
  set +eu
  exec >/dev/null 2>&1
  cd "$af_folder" || exit 73
  find_python "$af_python"
  "${af_found:-$af_python}" -c "$af_listen" "$af_name.port" "$af_low" "$af_high" &
  listener=$!
  for _ in {1..50}; do [ -e "$af_name.port" ] && break; kill -0 $listener || break; sleep 0.1; done
  {
    echo "host=$(uname -n)"
    echo "node=${SLURMD_NODENAME:-}"
    echo "clock=$(date +%s)"
    echo "prologue_exit=$1"
    echo "prologue_seconds=$took"
    id -un >/dev/null; echo "user_exit=$?"
    echo "python=$af_found"
    echo "python_version=$([ -z "$af_found" ] || "$af_found" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"
    echo "python_tried=$af_tried"
    echo "python_absent=$af_absent"
    apptainer=$("$af_apptainer" --version 2>&1); echo "apptainer_exit=$?"
    echo "apptainer=$(tail -n 1 <<<"${apptainer##*slurm_script: line *: }")"
    unshare --user --map-root-user true; echo "namespaces_exit=$?"
    suid=$("$af_apptainer" buildcfg LIBEXECDIR)/apptainer/bin/starter-suid; [ -u "$suid" ]; echo "setuid_exit=$?"
    network=$("$af_found" -I "$af_name.py" 2>&1); echo "network_exit=$?"
    echo "network=$(tail -n 1 <<<"$network")"
    echo "tmp=${TMPDIR:-/tmp}"
    echo "tmp_free=$(df -Pm "${TMPDIR:-/tmp}" | awk 'NR == 2 {print $4}')"
    read -r port taken <"$af_name.port"
    echo "port=$port"
    echo "ports_taken=$taken"
    for file in "${af_files[@]}"; do [ -r "$file" ] || echo "missing=$file"; done
  } >"$af_name.draft" && mv "$af_name.draft" "$af_name.there"
  wait $listener
  exit 0
}

[ -d "${af_folder%/*}" ] || exit 73
# a shared folder may show late what another host has made in it
for _ in {1..10}; do cd "$af_folder" && [ -e "$af_name.here" ] && break; sleep 0.5; done
cd "$af_folder" || exit 75
: >"$af_name.draft" || exit 74
[ -e "$af_name.here" ] || { rm -f "$af_name.draft"; exit 75; }
cat "$af_name.here" >"$af_name.draft" && mv "$af_name.draft" "$af_name.begun" || exit 74

# as launch.sh does it; what it prints is kept
exec >"$af_name.words" 2>&1
readonly af_began=$SECONDS
trap 'af_report "$?"' EXIT
if [ -n "$af_prologue" ]; then
# include login_profile
fi
eval "$af_prologue"
af_report "$?"
