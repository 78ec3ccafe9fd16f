# Where no `module` is known, read what login shells read for all users, as a script that begins with `#!/bin/bash -l`
# does: Lmod and Environment Modules make `module` there. What was on PATH goes on coming first. Not in a function: what
# it declares would be gone.
if ! type -t module >/dev/null && [ -r /etc/profile ]; then
  af_path=$PATH af_umask=$(umask)
  # shellcheck source=/dev/null
  . /etc/profile >&2
  PATH=$af_path:$PATH
  umask "$af_umask"
  unset af_path af_umask
fi
