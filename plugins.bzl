"""The one list of in-tree plugins: a new plugin adds its line here."""

# Sorted, one a line.
PLUGINS = [
    "//data/sources/albef_json:plugin",
    "//encoders/bert_text:plugin",
    "//encoders/cross_fusion:plugin",
    "//encoders/resnet:plugin",
    "//encoders/vit:plugin",
    "//objectives/itc:plugin",
    "//objectives/itm:plugin",
    "//objectives/mim:plugin",
    "//objectives/mim_regression:plugin",
    "//objectives/mlm:plugin",
    "//objectives/reconstruction:plugin",
    "//objectives/semantic_codebook:plugin",
    "//quantizers/gumbel:plugin",
    "//quantizers/ibq:plugin",
    "//quantizers/norm_ema:plugin",
    "//quantizers/random_projection:plugin",
    "//quantizers/simvq:plugin",
    "//quantizers/soho:plugin",
    "//quantizers/vq:plugin",
    "//quantizers/vq_ema:plugin",
    "//tasks/codebook_semantics:plugin",
    "//tasks/mim_accuracy:plugin",
    "//tasks/retrieval:plugin",
    "//tasks/vqa:plugin",
]
