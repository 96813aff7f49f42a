#!/usr/bin/env bash
# Compares SemVQ with its public peers, live. See README.md beside this file.
#
#   tests/parity/run.sh                 everything
#   tests/parity/run.sh bert vit        check_bert.py and check_vit.py only
#   tests/parity/run.sh --install-only  gets the peers, prints their Python
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${SEMVQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/semvq}
torch_version=$(sed -n 's/^readonly LIBTORCH_VERSION=//p' "$root/setup.sh")
venv=$cache/parity/venv

fail() {
  printf 'tests/parity/run.sh: %s\n  next: %s\n' "$1" "$2" >&2
  exit 1
}

pip_install() {
  python3 -m pip --python "$venv/bin/python" --quiet --disable-pip-version-check install "$@" ||
    fail "pip could not install $*" "check the network, then run this again"
}

install_peers() {
  local stamp
  stamp="$torch_version $(sha256sum <"$here/requirements.txt")"
  [[ $(cat "$venv/stamp" 2>/dev/null) == "$stamp" ]] && return
  echo "Installing the peers into $venv" >&2
  rm -rf "$venv"
  # Both sides then compute with the same kernels.
  "$root/tests/python_torch.sh" "$venv" >/dev/null
  # These depend on torch's package, and so on all of CUDA's; pycocoevalcap on
  # one that is compiled here and that its scores do without.
  local alone='^(pycocoevalcap|timm|torch-einops-utils|torchvision|vector-quantize-pytorch)=='
  grep -E "$alone" "$here/requirements.txt" >"$venv/alone.txt"
  grep -vE "$alone" "$here/requirements.txt" >"$venv/others.txt"
  pip_install -r "$venv/others.txt"
  pip_install --no-deps -r "$venv/alone.txt"
  "$venv/bin/python" -c 'import pycocoevalcap, torch, torchvision, timm, transformers, vector_quantize_pytorch' ||
    fail "the peers do not import" "remove $venv and run this again"
  echo "$stamp" >"$venv/stamp"
}

install_peers
if [[ ${1:-} == --install-only ]]; then
  echo "$venv/bin/python"
  exit
fi

export SEMVQ_ROOT=$root SEMVQ_CACHE=$cache OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONPATH=$here
exec "$venv/bin/python" "$here/driver.py" "$@"
