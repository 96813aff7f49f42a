#!/usr/bin/env bash
# bench/quantizers on the GPU, beside torch's operators and, where it is installed, vector-quantize-pytorch: packed by
# pack.sh, or from the repository, where it is packed first. Options go to compare.py (--help lists them).
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ ! -d $here/bin ]]; then
  "$here/pack.sh" >&2
  here=$(cd "$here/../.." && pwd)/gpu_pack
fi
exec "$here/launch.sh" "${PYTHON:-python3}" "$here/bench/compare.py" --bench="$here/bin/bench" --device=cuda "$@"
