"""Backup, restore and upgrade as docs/operation.md prints them, typed in each layout that docs/installing.md makes.

Both are typed in a mount namespace of their own, where /etc, /home, /opt, /var/lib and so on are the test's;
/backups and /shared lie in /srv. Users, git, file modes and our programs are real. Played are systemctl, sudo and what
needs a network: `make install`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

OPERATION, INSTALLING = (ROOT / "docs" / name for name in ("operation.md", "installing.md"))

NAMESPACE = r"""
set -e
mkdir -p "$AF/root"; mount -t tmpfs none "$AF/root"; cd "$AF/root"
mkdir -p etc etc-work home opt lib bin srv python tree
mount -t overlay -o "lowerdir=/etc,upperdir=$PWD/etc,workdir=$PWD/etc-work" none /etc
mount --bind "$AF_PYTHON" python; mount --bind "$AF_TREE" tree
for hidden in /root /tmp; do mount -t tmpfs -o mode=1777 none $hidden; done  # they may be closed to others
mkdir -p "$AF_PYTHON" "$AF_TREE"; mount --bind python "$AF_PYTHON"; mount --bind tree "$AF_TREE"
for pair in home:/home opt:/opt lib:/var/lib srv:/srv bin:/usr/local/bin; do
  mount --bind "${pair%%:*}" "${pair##*:}"
done
cd /
play() { cat >"/usr/local/bin/$1"; chmod 755 "/usr/local/bin/$1"; }
play date <<<'#!/bin/sh
[ "$1" != +%F ] || { echo 2026-11-23; exit; }
exec /usr/bin/date "$@"'
play sacctmgr <<<'#!/bin/sh'
play sudo <<<'#!/bin/bash
[ "$1" = -iu ] || exit 9
exec runuser -l "$2" -c "${*:3}"'
play systemctl <<<'#!/bin/sh
echo "$@" >>/srv/systemctl'
play make <<X
#!/bin/bash
[ "\$1 \$3" = "-C install" ] || exit 9
mkdir -p "\$2/.venv/bin"
printf '#!/bin/bash\nPYTHONPATH=%s exec %s -m api.cli "\$@"\n' "\$2" "$AF_TREE/.venv/bin/python" \\
  >"\$2/.venv/bin/ai-factory"
chmod 755 "\$2/.venv/bin/ai-factory"
X
chmod 1777 /srv
export HOME=/srv PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin REPOSITORY=/srv/release LC_ALL=C.UTF-8
git config --file /srv/.gitconfig user.name x; git config --file /srv/.gitconfig user.email x@example.org
mkdir /srv/release
tar -C "$AF_TREE" --exclude=./.venv* --exclude=./.git --exclude=./.local -c . | tar -C /srv/release --no-same-owner -x
git -C /srv/release init -q; git -C /srv/release add -A; git -C /srv/release commit -qm first
release() {
  umask 022
  echo second >/srv/release/NEWS
  git -C /srv/release add -A
  git -C /srv/release commit -qm second
}
chmod -R a+rX /srv/release
"""


def section(page: Path, heading: str) -> str:
    text = re.sub("(?<![a-z])/(backups|shared)", r"/srv/\1", page.read_text()).replace("~/srv/", "~/")
    return text[text.index(f"\n## {heading}\n") + 1 :].split("\n## ")[0]


def typed(page: Path, heading: str, who: str = "") -> list[str]:
    """Return the commands of each block below a heading, or of those that begin after such words."""
    found = re.findall(rf"{who}[^\n]*\n\n```\n(.*?)```", section(page, heading), re.DOTALL)
    lines = [[line.removeprefix("$ ") for line in block.splitlines()] for block in found]
    return ["\n".join(line for line in block if not line.endswith(" adopt")) for block in lines]  # it asks Slurm


def in_namespace(tmp_path: Path, script: str) -> str:
    if os.geteuid() != 0:
        pytest.fail("only root can make users and mounts: run the tests as root")
    base = Path(sys.base_prefix)
    around = base.parents[1] if ".pyenv" in base.parts else base
    environment = os.environ | {"AF": str(tmp_path), "AF_PYTHON": str(around), "AF_TREE": str(ROOT)}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", f"{NAMESPACE}\nset -x\n{script}"],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


KEY = "(umask 077; head -c 32 /dev/urandom >{state}/installation.key)"
"""As the first start makes it."""


def test_where_root_has_set_it_up(tmp_path: Path) -> None:
    set_up, *_ = typed(INSTALLING, "Set it up")
    (config,) = re.findall(r"```toml\n(# /etc/ai-factory.*?)```", section(INSTALLING, "Set it up"), re.DOTALL)
    (backup, restore), (upgrade,) = (typed(OPERATION, one, "As root") for one in ("Backup and restore", "Upgrading"))
    program = "sudo -iu ai-factory ai-factory --config /etc/ai-factory/config.toml"
    told = in_namespace(
        tmp_path,
        f"""
{set_up}
cat >/etc/ai-factory/config.toml <<'CONFIG'
{config}
CONFIG
{program} migrate
{KEY.format(state="/var/lib/ai-factory")}; chown ai-factory: /var/lib/ai-factory/installation.key
{backup}
release
{upgrade}
[ -e /opt/ai-factory/NEWS ]
sudo -iu ai-factory test -s before-upgrade.tar
{restore}
[ "$(stat -c '%U %a' /var/lib/ai-factory)" = "ai-factory 700" ]
{program} migrate --check
cat /srv/systemctl
""",
    )
    assert told.split("\n")[-4:] == ["stop ai-factory", "start ai-factory", "stop ai-factory", ""]


def test_where_it_lies_in_a_users_home(tmp_path: Path) -> None:
    (set_up,) = typed(INSTALLING, "Without root")
    installing = "\n".join(line for line in set_up.splitlines() if re.match("git|make|export", line))
    (backup, restore), (upgrade,) = (
        typed(OPERATION, one, "Without root") for one in ("Backup and restore", "Upgrading")
    )
    told = in_namespace(
        tmp_path,
        f"""
useradd --create-home --shell /bin/bash somebody
somebody() {{ cat >/srv/typed; runuser -l somebody -c 'set -e; . /srv/typed'; }}
somebody <<'TYPED'
git config --global --add safe.directory /srv/release/.git
export REPOSITORY=/srv/release
{installing}
ai-factory migrate
{KEY.format(state="~/.local/state/ai-factory")}
{backup}
TYPED
release
somebody <<'TYPED'
export PATH=~/ai-factory/.venv/bin:$PATH
{upgrade}
[ -e ~/ai-factory/NEWS ]
{restore}
ai-factory migrate --check
TYPED
cat /srv/systemctl
""",
    )
    assert told.split("\n")[-4:] == ["--user stop ai-factory", "--user start ai-factory", "--user stop ai-factory", ""]
