"""fuzz_test: one fuzz target."""

def fuzz_test(name, deps, dictionary = None):
    """A function of bytes, from <name>.cc, with seeds in corpus/<name>/.

    `bazel test` runs it on the seeds, each a test case. With --config=fuzz it
    is a libFuzzer binary that starts from them (see libfuzzer.cc). An input
    that was found to fail is fixed and then added to the seeds.

    Args:
      name: the target; <name>.cc defines LLVMFuzzerTestOneInput.
      deps: what it tests.
      dictionary: a file of words that inputs are made of.
    """
    args = ["tests/fuzz/corpus/" + name]
    data = native.glob(["corpus/%s/**" % name])
    if dictionary:
        args.append("-dict=tests/fuzz/" + dictionary)
        data.append(dictionary)
    native.cc_test(
        name = name,
        size = "small",
        srcs = [name + ".cc"],
        args = args,
        data = data,
        linkopts = select({
            ":libfuzzer_build": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        tags = ["sanitize"],
        deps = deps + [":fuzz", "@absl"] + select({
            ":libfuzzer_build": [":libfuzzer"],
            "//conditions:default": [":replay"],
        }),
    )
