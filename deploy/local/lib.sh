# Helpers that the scripts of this folder share; sourced, never run.
# shellcheck shell=bash

ME=${0##*/}
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # daemons live there, and a plain user's PATH lacks them

say() { echo "$ME: $*" >&2; }

# die WHAT [WHY] [LOG] [WHAT TO DO]
die() {
  echo "$ME: $1" >&2
  [ -z "${2:-}" ] || echo "  why:  $2" >&2
  [ -z "${3:-}" ] || echo "  log:  $3" >&2
  [ -z "${4:-}" ] || echo "  do:   $4" >&2
  exit 1
}

# telling LOG: the line of a log that says what went wrong: the last that speaks of an error, else the last
telling() {
  grep -iE 'error|fatal|cause|certificate|×|╰' "$1" 2>/dev/null | tail -n 1 | grep . || tail -n 1 "$1" 2>/dev/null || true
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif sudo -n true 2>/dev/null || { command -v sudo >/dev/null && [ -t 0 ]; }; then
    sudo "$@"
  else
    return 126
  fi
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# apt_install LOG PACKAGE...: what of these is missing, without starting any daemon.
apt_install() {
  local log=$1 need=() p rc=0
  shift
  for p; do installed "$p" || need+=("$p"); done
  [ ${#need[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "cannot install ${need[*]}" "this is not a Debian system (no apt-get)" "" "install these by the system's own means, then run this again"
  say "installing packages: ${need[*]}"
  mkdir -p "$(dirname "$log")"
  (
    # several of these scripts may run at once; policy-rc.d below must not be shared
    exec 8>>"/tmp/.ai-factory-apt-$(id -u).lock"
    flock 8
    as_root bash -s "${need[@]}" 8>&- >>"$log" 2>&1 <<'ROOT'
set -u
policy=/usr/sbin/policy-rc.d
# a package's post-install script would start its daemon; policy-rc.d is Debian's way to say no
if [ ! -e $policy ] || grep -q 'ai-factory: temporary' $policy; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\n# ai-factory: temporary\nexit 101\n' >$policy && chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
opt=(-q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
# left by an earlier one that was cut off
[ -z "$(dpkg --audit)" ] || dpkg --configure -a
# the lists of a fresh image may be missing or out of date: then update and try once more
apt-get "${opt[@]}" -y install --no-install-recommends "$@" ||
  { apt-get "${opt[@]}" update; apt-get "${opt[@]}" -y install --no-install-recommends "$@"; } || exit 1
# and not at the next boot either
if [ -d /run/systemd/system ]; then
  for u in munge mariadb slurmctld slurmd slurmdbd; do
    case " $* " in *" $u"*) systemctl disable "$u" || true ;; esac
  done
fi
ROOT
  ) || rc=$?
  [ $rc != 126 ] || die "cannot install ${need[*]}" "neither root nor sudo" "" "ask for: apt-get install ${need[*]}"
  [ $rc = 0 ] || die "apt-get install failed for: ${need[*]}" "$(tail -n 1 "$log")" "$log" "run apt-get update and look at the log"
}

# uv_like_pip [PYTHON...]: have uv use what pip is configured with, by files (pip.conf) and variables (PIP_...), which it
# does not read itself: package index, certificates, proxy. What is set for uv stays. The first PYTHON with pip is asked.
uv_like_pip() {
  local python config='' cert
  for python in "$@" python3 /usr/bin/python3; do
    config=$("$python" -m pip config list 2>/dev/null) && break
  done
  pip_setting() { # NAME: variables are stronger than files, and pip install's own settings than those of all commands
    local part value variable=${1^^}
    variable=PIP_${variable//-/_}
    if [ -n "${!variable:-}" ]; then echo "${!variable}"; return; fi
    for part in install global; do
      value=$(sed -n "s/^$part\\.$1='\\(.*\\)'\$/\\1/p" <<<"$config")
      [ -z "$value" ] || { echo "${value//\\n/ }" | xargs; return; }
    done
  }
  for_uv() { [ -n "${!1:-}" ] || [ -z "$2" ] || export "$1=$2"; }
  for_uv UV_DEFAULT_INDEX "$(pip_setting index-url)"
  for_uv UV_INDEX "$(pip_setting extra-index-url)"
  [ -z "${UV_INDEX:-}" ] || for_uv UV_INDEX_STRATEGY unsafe-best-match # as pip takes them
  for_uv UV_FIND_LINKS "$(pip_setting find-links | tr ' ' ,)"
  for_uv UV_INSECURE_HOST "$(pip_setting trusted-host)"
  for_uv ALL_PROXY "$(pip_setting proxy)"
  for_uv SSL_CLIENT_CERT "$(pip_setting client-cert)"
  for_uv UV_HTTP_TIMEOUT "$(pip_setting default-timeout)"
  cert=$(pip_setting cert)
  for_uv SSL_CERT_FILE "${cert:-${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-}}}"
  [ -n "${SSL_CERT_FILE:-}" ] || for_uv UV_NATIVE_TLS true # the system's certificates
}
