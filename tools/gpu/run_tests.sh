#!/usr/bin/env bash
# The CUDA kernels' tests: packed by pack.sh, or from the repository, where it is packed first. Arguments go to
# googletest. Without a GPU they skip and say so. With compute-sanitizer at hand, SANITIZE=1 runs them under its
# memcheck, racecheck, initcheck and synccheck too.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ ! -d $here/bin ]]; then
  "$here/pack.sh" >&2
  here=$(cd "$here/../.." && pwd)/gpu_pack
fi
"$here/launch.sh" "$here/bin/kernels_cuda_test" "$@"
if [[ ${SANITIZE:-0} == 1 ]]; then
  for tool in memcheck racecheck initcheck synccheck; do
    echo "compute-sanitizer --tool $tool"
    "$here/launch.sh" compute-sanitizer --tool "$tool" --error-exitcode 1 "$here/bin/kernels_cuda_test" "$@"
  done
fi
