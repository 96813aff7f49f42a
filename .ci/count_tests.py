"""Counts the test cases of Bazel runs from their build event files.

Only what these runs report is counted, never a stale bazel-testlogs. A target
that was not built, crashed or timed out counts as one failed case at least.
"""

import argparse
import collections
import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def cases_of(path):
    """Passed and failed cases of one test.xml; skipped ones are neither."""
    passed = failed = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif (
            case.find("skipped") is None
            and case.get("result") not in ("skipped", "suppressed")
            and case.get("status") != "notrun"
        ):
            passed += 1
    return passed, failed


def xml_of(result):
    for output in result.get("testActionOutput", []):
        if output.get("name") == "test.xml":
            return urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path)
    return None


def count(path):
    """(passed, failed, lines naming the failed targets) of one run."""
    results = {}  # (label, run, shard) -> result of the last attempt
    broken = {}  # label -> why there is no result
    with open(path, encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            name = event["id"]
            if "testResult" in name and "testResult" in event:
                key = name["testResult"]
                results[
                    key["label"], key.get("run", 1), key.get("shard", 1)
                ] = event["testResult"]
            elif "targetCompleted" in name and not event.get("completed", {}).get(
                "success", False
            ):
                broken[name["targetCompleted"]["label"]] = "was not built"
            elif "pattern" in name and "aborted" in event:
                broken[" ".join(name["pattern"]["pattern"])] = "was not loaded"

    totals = collections.Counter()
    failures = []
    for (label, _, _), result in sorted(results.items()):
        broken.pop(label, None)
        status = result.get("status", "NO_STATUS")
        xml = xml_of(result)
        try:
            passed, failed = cases_of(xml) if xml else (0, 0)
        except (OSError, ElementTree.ParseError):
            passed, failed = 0, 0
        if status not in ("PASSED", "FLAKY"):
            failed = max(failed, 1)
        elif passed + failed == 0:
            # A test that passes and reports no cases has tested nothing.
            failed, status = 1, "ran no test case"
        if failed:
            failures.append(f"{label}: {status}, {failed} failed")
        totals["passed"] += passed
        totals["failed"] += failed
    for label, why in sorted(broken.items()):
        failures.append(f"{label}: {why}")
        totals["failed"] += 1
    return totals["passed"], totals["failed"], failures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--status", type=int, default=0, help="0 if Bazel was content")
    parser.add_argument("events", nargs="+", help="files of --build_event_json_file")
    arguments = parser.parse_args()

    passed = failed = 0
    for path in arguments.events:
        try:
            one_passed, one_failed, failures = count(path)
        except (OSError, ValueError) as error:
            one_passed, one_failed, failures = 0, 1, [f"{path}: {error}"]
        passed += one_passed
        failed += one_failed
        for line in failures:
            print(f"FAILED {line}")
    if arguments.status and not failed:
        print("FAILED bazel reported an error outside any test; see above")
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
