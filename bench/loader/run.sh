#!/usr/bin/env bash
# Times SemVQ's loader with the peers beside it, taking turns, and prints Markdown tables.
#
#   bench/loader/run.sh [options of compare.py; --help lists them]
#
# The peers' Python is that of tests/parity, which pins them. SEMVQ_LOADER_BENCH and SEMVQ_PACK name built
# //bench/loader:bench and //tools/data:pack; without them Bazel builds both.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${SEMVQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/semvq}

python=$("$root/tests/parity/run.sh" --install-only)
if [[ -z ${SEMVQ_LOADER_BENCH:-} || -z ${SEMVQ_PACK:-} ]]; then
  (cd "$root" && bazel build //bench/loader:bench //tools/data:pack >&2)
  SEMVQ_LOADER_BENCH=$root/bazel-bin/bench/loader/bench
  SEMVQ_PACK=$root/bazel-bin/tools/data/pack
fi
export OMP_WAIT_POLICY=passive
exec "$python" "$here/compare.py" --bench="$SEMVQ_LOADER_BENCH" --pack="$SEMVQ_PACK" \
  --data="$cache/bench/loader-data" "$@"
