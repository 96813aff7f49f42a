#!/bin/bash
# The program of docs/quantizers.md gives one code in range for each patch, the
# same every time, and says what is wrong with a file that is no image.
set -euo pipefail
program="$TEST_SRCDIR/$TEST_WORKSPACE/quantizers/tokenize_images"
image="$TEST_SRCDIR/$TEST_WORKSPACE/data/testdata/resize_97x61.png"

"$program" "$image" | tee "$TEST_TMPDIR/codes"
codes=$(grep -cE '^ *[0-9]+$' <(sed 's/^[^:]*://' "$TEST_TMPDIR/codes"))
[[ "$codes" == 16 ]] || { echo "got $codes codes, expected 16"; exit 1; }
worst=$(sed 's/^[^:]*://' "$TEST_TMPDIR/codes" | grep -oE '^ *[0-9]+$' | sort -n | tail -1)
(( worst < 512 )) || { echo "code $worst is out of range"; exit 1; }
"$program" "$image" | cmp - "$TEST_TMPDIR/codes"

if "$program" "$0" 2> "$TEST_TMPDIR/error"; then
  echo "a shell script was taken for an image"; exit 1
fi
grep -q "$(basename "$0")" "$TEST_TMPDIR/error"
