#!/usr/bin/env bash
# What is measured on a GPU alone, on a machine that is there for minutes: kernels against their twins, then
# benches. Every part has its own limit and log; what was measured before a limit is kept. The package's
# dependencies must be importable; PYTHON names another interpreter.
#
#   benches/on_gpu.sh OUT [PART ...]      parts: twins render people personalize, all by default
#
# A copy without its repository, or with an old one, says which commit it is of by MY3DGEN_COMMIT.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?name a folder for logs and results}
shift
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

part() { # name, seconds, command
  local name=$1 seconds=$2 begun=$SECONDS
  shift 2
  timeout -s INT -k 10 "$seconds" "$@" >"$out/$name.log" 2>&1
  echo "$name: exit code $? after $((SECONDS - begun)) s"
  tail -n "${TAIL:-25}" "$out/$name.log"
}

for name in "${@:-twins render people personalize}"; do
  for one in $name; do
    case $one in
      twins) part twins 240 "$python" -m pytest -p no:cacheprovider tests/ops/test_cuda_twins.py tests/test_fast.py ;;
      render | people | personalize) part "$one" 300 "$python" -m my3dgen bench "$one" --out "$out/$one.json" ;;
      *) echo "no part '$one'; choose twins, render, people or personalize" >&2; exit 2 ;;
    esac
  done
done
