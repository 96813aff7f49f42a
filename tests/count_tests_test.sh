#!/bin/bash
# Counts the cases of a made-up Bazel run: passed, failed, skipped, crashed,
# not built, and a run that tested nothing.
set -u
failed=0
work=$TEST_TMPDIR

# result LABEL STATUS [XML]: one event of a test that ran.
result() {
  local output=
  if [[ -n ${3:-} ]]; then
    printf '%s' "$3" >"$work/$1.xml"
    output='{"name":"test.xml","uri":"file://'$work/$1'.xml"}'
  fi
  printf '{"id":{"testResult":{"label":"//t:%s","run":1,"attempt":1}},"testResult":{"status":"%s","testActionOutput":[%s]}}\n' \
    "$1" "$2" "$output"
}

# expect NAME EXIT LINE BAZEL_STATUS: the closing line for $work/events.
expect() {
  local output status
  output=$(python3 .ci/count_tests.py --status="$4" "$work/events")
  status=$?
  if [[ $(tail -n 1 <<<"$output") != "$3" || $status != "$2" ]]; then
    printf 'FAILED: %s\nexpected exit %s and "%s"; got exit %s and\n%s\n' "$1" "$2" "$3" "$status" "$output" >&2
    failed=1
  fi
}

good='<testsuites><testsuite><testcase name="A" status="run" result="completed"/><testcase name="B" status="run" result="completed"/><testcase name="S" status="run" result="skipped"/><testcase name="D" status="notrun" result="suppressed"/></testsuite></testsuites>'
bad='<testsuites><testsuite><testcase name="A"/><testcase name="B"><failure message="x"/></testcase></testsuite></testsuites>'
none='<testsuites tests="0"/>'

result good PASSED "$good" >"$work/events"
expect "skipped and disabled cases do not count" 0 "2 passed, 0 failed" 0
expect "an error of Bazel's is a failure" 1 "2 passed, 1 failed" 1

{ result good PASSED "$good"; result bad FAILED "$bad"; } >"$work/events"
expect "failures are counted" 1 "3 passed, 1 failed" 3

{ result good PASSED "$good"; result slow TIMEOUT; } >"$work/events"
expect "a time-out without a report is one failure" 1 "2 passed, 1 failed" 3

result hollow PASSED "$none" >"$work/events"
expect "a test without cases is a failure" 1 "0 passed, 1 failed" 0

{
  result good PASSED "$good"
  echo '{"id":{"targetCompleted":{"label":"//t:broken"}},"completed":{}}'
} >"$work/events"
expect "a target that does not build is a failure" 1 "2 passed, 1 failed" 1

: >"$work/events"
expect "no test at all is not a success" 1 "0 passed, 0 failed" 0
rm "$work/events"
expect "no report is not a success" 1 "0 passed, 1 failed" 0
exit $failed
