"""@clang: a C++ toolchain of Debian's clang, for --config=fuzz alone."""

load("@bazel_tools//tools/cpp:unix_cc_configure.bzl", "configure_unix_toolchain")

def _clang_repository_impl(ctx):
    clang = ctx.which("clang-14") or ctx.which("clang")
    if not clang:
        fail("--config=fuzz needs clang, for libFuzzer; run ./setup.sh --fuzz")
    configure_unix_toolchain(ctx, "k8", {"gcc": str(clang)})

clang_repository = repository_rule(
    implementation = _clang_repository_impl,
    configure = True,
    environ = ["PATH"],
    local = True,
    doc = "What Bazel itself would configure with CC=clang; --crosstool_top=@clang//:toolchain.",
)
