"""Everything SemVQ builds against that is not in its own tree.

An out-of-tree workspace calls `semvq_repositories()` too, so nothing here
may use a path relative to SemVQ's own root.
"""

load("//bazel:clang.bzl", "clang_repository")
load("//bazel:cuda.bzl", "cuda_repository")
load("//bazel:protobuf.bzl", "system_protobuf_repository")
load("//bazel:sentencepiece.bzl", "sentencepiece_repository")
load("//bazel:stubs.bzl", "stub_repository")
load("//bazel:system.bzl", "system_library")
load("//bazel:torch.bzl", "torch_repository")

def _maybe(rule, name, **kwargs):
    if name not in native.existing_rules():
        rule(name = name, **kwargs)

def semvq_repositories():
    """Declares LibTorch, the system libraries and Bazel's own rule sets."""
    _maybe(torch_repository, name = "torch")
    _maybe(cuda_repository, name = "cuda")
    _maybe(clang_repository, name = "clang")
    _maybe(system_protobuf_repository, name = "com_google_protobuf")

    # absl's parts are static archives or small shared objects; one target
    # carries all, and the linker drops what is not used.
    _maybe(system_library, name = "absl", package = "libabsl-dev", modules = ["absl_*"])
    _maybe(system_library, name = "re2", package = "libre2-dev", modules = ["re2"])
    _maybe(sentencepiece_repository, name = "sentencepiece")

    # Only these three: the others pull in a hundred shared objects.
    _maybe(system_library, name = "opencv", package = "libopencv-dev", modules = ["opencv4"], libraries = ["opencv_imgcodecs", "opencv_imgproc", "opencv_core"])
    _maybe(system_library, name = "gtest", package = "libgtest-dev", modules = ["gtest"], main_module = "gtest_main")
    _maybe(system_library, name = "simdjson", package = "libsimdjson-dev", modules = ["simdjson"])
    _maybe(system_library, name = "utf8proc", package = "libutf8proc-dev", modules = ["libutf8proc"])
    _maybe(system_library, name = "freetype", package = "libfreetype-dev", modules = ["freetype2"])
    _maybe(system_library, name = "harfbuzz", package = "libharfbuzz-dev", modules = ["harfbuzz"])
    _maybe(system_library, name = "isal", package = "libisal-dev", modules = ["libisal"])
    _maybe(system_library, name = "openssl", package = "libssl-dev", modules = ["libcrypto"])
    _maybe(system_library, name = "libjpeg", package = "libjpeg62-turbo-dev", modules = ["libjpeg"])
    _maybe(system_library, name = "libpng", package = "libpng-dev", modules = ["libpng"])
    _maybe(system_library, name = "libxml2", package = "libxml2-dev", modules = ["libxml-2.0"])
    _maybe(system_library, name = "libarchive", package = "libarchive-dev", modules = ["libarchive"])

    # Bazel 4 asks for these although no target of ours names them.
    _maybe(stub_repository, name = "rules_cc", stub = "rules_cc")
    _maybe(stub_repository, name = "remote_coverage_tools", stub = "remote_coverage_tools")
    for name, path in _DEBIAN_RULES.items():
        _maybe(native.local_repository, name = name, path = "/usr/share/bazel/" + path)

_DEBIAN_RULES = {
    "bazel_skylib": "tools/skylib",
    "platforms": "platforms",
    "rules_java": "rules/java",
    "rules_proto": "rules/proto",
}
