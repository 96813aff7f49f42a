#!/usr/bin/env bash
# Times SemVQ's nearest codes and vq_ema with the peers beside it, taking turns, and prints Markdown tables.
#
#   bench/quantizers/run.sh [options of compare.py; --help lists them]
#
# The peers' Python is that of tests/parity with requirements.txt on top, in a folder of its own. SEMVQ_BENCH names a
# built //bench/quantizers:bench; without it Bazel builds one.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${SEMVQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/semvq}
venv=$cache/bench/venv

fail() {
  printf 'bench/quantizers/run.sh: %s\n  next: %s\n' "$1" "$2" >&2
  exit 1
}

install_peers() {
  local base stamp site
  base=$("$root/tests/parity/run.sh" --install-only)
  stamp="$base $(sha256sum <"$here/requirements.txt")"
  [[ $(cat "$venv/stamp" 2>/dev/null) == "$stamp" ]] && return
  echo "Installing the peers into $venv" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # torch and numpy come from there.
  "$base" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/parity.pth"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps -r "$here/requirements.txt" ||
    fail "pip could not install requirements.txt" "check the network, then run this again"
  "$venv/bin/python" -c 'import faiss, torch, vector_quantize_pytorch' ||
    fail "the peers do not import" "remove $venv and run this again"
  echo "$stamp" >"$venv/stamp"
}

install_peers
if [[ -z ${SEMVQ_BENCH:-} ]]; then
  (cd "$root" && bazel build //bench/quantizers:bench >&2)
  SEMVQ_BENCH=$root/bazel-bin/bench/quantizers/bench
fi
# Threads that wait must not take a core from the contender whose turn it is.
export OMP_WAIT_POLICY=passive
exec "$venv/bin/python" "$here/compare.py" --bench="$SEMVQ_BENCH" "$@"
