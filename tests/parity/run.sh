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
libtorch=$cache/libtorch-$torch_version
venv=$cache/parity/venv

fail() {
  printf 'tests/parity/run.sh: %s\n  next: %s\n' "$1" "$2" >&2
  exit 1
}

pip_install() {
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check install "$@" ||
    fail "pip could not install $*" "check the network, then run this again"
}

# Python's torch is the LibTorch of setup.sh: both sides then compute with the
# same kernels, and half a gigabyte is not fetched twice. Its files are linked
# one by one: libraries look for others beside the folder they were opened in,
# and that must be the folder where pip puts them.
install_peers() {
  local stamp pin lost name
  stamp="$torch_version $(sha256sum <"$here/requirements.txt")"
  [[ $(cat "$venv/stamp" 2>/dev/null) == "$stamp" ]] && return
  [[ -d $libtorch/torch ]] || fail "no LibTorch $torch_version in $cache" "./setup.sh"
  echo "Installing the peers into $venv" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  local site
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  for name in torch torchgen functorch nvidia "torch-$torch_version.dist-info"; do
    [[ ! -e $libtorch/$name ]] || cp -rs "$libtorch/$name" "$site/$name"
  done
  # What Python's torch loads beyond LibTorch's CPU part, in the versions that
  # its package pins.
  for name in cufile:nvidia-cufile==1.15.1.* cusparselt:cusparselt nvshmem:nvshmem \
    cudnn:cudnn nccl:nccl; do
    lost=$(ldd "$libtorch/torch/lib/libtorch_cuda.so" | grep -i "lib${name%%:*}.*not found" || true)
    [[ -n $lost ]] || continue
    pin=${name#*:}
    [[ $pin == *==* ]] || pin=$(sed -n "s/^Requires-Dist: \(nvidia-$pin-cu13==[0-9.]*\).*/\1/p" \
      "$libtorch/torch-$torch_version.dist-info/METADATA")
    pip_install --no-deps "$pin"
  done
  if ldd "$libtorch/torch/lib/libtorch_cuda.so" | grep -qE 'lib(cublas|cufft|cusparse)\.so.*not found' &&
    [[ ! -d $libtorch/nvidia/cu13 ]]; then
    pip_install "cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.0.2"
  fi
  pip_install filelock fsspec jinja2 networkx sympy typing-extensions 'setuptools<82'
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
