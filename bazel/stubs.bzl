"""Repositories Bazel insists on, reduced to what it needs from them."""

_RULES_CC = """
\"\"\"The native C++ rules under the names other rule sets load.\"\"\"

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library
"""

_COVERAGE_TARGETS = [
    "Main",
    "coverage_output_generator",
    "coverage_report_generator",
    "lcov_merger",
]

def _stub_repository_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    if ctx.attr.stub == "rules_cc":
        ctx.file("BUILD", "")
        ctx.file("cc/BUILD", "exports_files([\"defs.bzl\"])\n")
        ctx.file("cc/defs.bzl", _RULES_CC)
    else:
        ctx.file("BUILD", "".join([
            "filegroup(name = \"%s\", visibility = [\"//visibility:public\"])\n" % name
            for name in _COVERAGE_TARGETS
        ]))

stub_repository = repository_rule(
    implementation = _stub_repository_impl,
    attrs = {
        "stub": attr.string(
            mandatory = True,
            values = ["rules_cc", "remote_coverage_tools"],
        ),
    },
    doc = "A stand-in for a repository of Bazel's that Debian does not ship usable.",
)
