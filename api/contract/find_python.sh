# find_python CONFIGURED: choose the Python that runs in a job. That is the configured one if it is 3.9 or later, else the
# first of those below that is. The answer is in af_found, empty where none will do; af_tried and af_absent say what was
# found on the way. ctypes, json and ssl (for the door) are what a minimal or self-built Python may lack.
find_python() {
  local name path answer
  af_found='' af_tried='' af_absent=''
  for name in "$1" python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3; do
    [ "$name" != "$1" ] || [ -z "$af_tried$af_absent" ] || continue
    if ! path=$(type -P -- "$name"); then
      af_absent+="${af_absent:+, }$name"
      continue
    fi
    answer=$("$path" -E -s -c 'import sys
print("%d.%d.%d" % sys.version_info[:3])
sys.stdout.flush()  # what is wrong comes last
if sys.version_info < (3, 9): sys.exit(1)
import ctypes, json, ssl' 2>&1 </dev/null) && { af_found=$path; return; }
    answer=${answer##*$'\n'}
    af_tried+="${af_tried:+, }$path (${answer:0:200})"
  done
}
