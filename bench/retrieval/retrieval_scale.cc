// Runs the retrieval task on made-up features of COCO's 5K test: 5,000 images
// of 384 px (577 tokens of 768), 25,000 captions, 256 candidates reranked. What
// the encoders cost is left out: tokens are noise, and "matching" is a product
// of two of them. Prints the seconds of each part and the peak of the memory.
//
//   retrieval_scale [IMAGES [TOP_K]]
#include <sys/resource.h>
#include <torch/types.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/forward/forward.h"
#include "core/forward/types.h"
#include "core/plugin/task.h"
#include "tasks/retrieval/retrieval.h"

namespace semvq {
namespace {

constexpr int64_t kBatch = 64, kCaptions = 5, kLength = 30, kDim = 768;
constexpr int64_t kImageTokens = 577, kEmbedding = 256;

double Seconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double PeakGiB() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

// Noise that is the same whenever the same image or text is asked for.
at::Tensor Noise(int64_t number, at::IntArrayRef shape) {
  torch::manual_seed(static_cast<uint64_t>(number));
  return at::randn(shape);
}

class Provider : public ViewProvider {
 public:
  explicit Provider(std::function<std::any(const ViewKey&, Forward&)> compute)
      : compute_(std::move(compute)) {}
  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    return compute_(key, forward);
  }

 private:
  std::function<std::any(const ViewKey&, Forward&)> compute_;
};

class Context : public EvalContext {
 public:
  Context(int64_t images, std::string folder)
      : images_(images),
        folder_(std::move(folder)),
        itc_([](const ViewKey& key, Forward& f) {
          const Batch& batch = f.batch();
          const bool image = key.view == kImageEmbedding;
          const int64_t rows = image ? batch.num_images() : batch.num_texts();
          const at::Tensor x =
              Noise(2 * batch.sample_numbers[0] + image, {rows, kEmbedding});
          return std::any(at::div(x, x.norm(2, 1, true)));
        }),
        visual_([](const ViewKey&, Forward& f) {
          Tokens tokens;
          tokens.values = Noise(f.batch().sample_numbers[0],
                                {f.batch().num_images(), kImageTokens, kDim});
          return std::any(tokens);
        }),
        text_([](const ViewKey&, Forward& f) {
          Tokens tokens;
          tokens.values = Noise(f.batch().sample_numbers[0],
                                {f.batch().num_texts(), kLength, kDim});
          return std::any(tokens);
        }),
        itm_([](const ViewKey&, Forward& f) {
          const at::Tensor image =
              f.Get<Tokens>(ImageKey("visual", kTokens))
                  .values.select(1, 0)
                  .index_select(0, f.batch().text_to_image);
          const at::Tensor text =
              f.Get<Tokens>(TextKey("text", kTokens)).values.select(1, 0);
          const at::Tensor match = at::mul(image, text).mean(1);
          return std::any(at::stack({-match, match}, 1));
        }) {
    providers_ = {
        {"itc", &itc_}, {"visual", &visual_}, {"text", &text_}, {"itm", &itm_}};
  }

  absl::Status ForEachBatch(
      const std::function<absl::Status(const Batch&)>& visit) override {
    const double start = Seconds();
    for (int64_t first = 0; first < images_; first += kBatch) {
      const int64_t n = std::min(kBatch, images_ - first), t = n * kCaptions;
      Batch batch;
      batch.images = at::zeros({n, 1, 3, 1, 1});
      batch.text_ids = at::zeros({t, kLength}, at::kLong);
      // COCO's captions have 8 to 20 tokens, 13 or 14 on average.
      torch::manual_seed(static_cast<uint64_t>(first));
      batch.text_mask = at::arange(kLength).unsqueeze(0).lt(
          at::randint(8, 20, {t, 1}, at::kLong));
      batch.text_to_image = at::arange(t).floor_divide(kCaptions);
      batch.texts.resize(t);
      for (int64_t i = first; i < first + n; ++i) {
        batch.image_ids.push_back(absl::StrCat(i));
        batch.sample_numbers.push_back(i);
      }
      absl::Status status = visit(batch);
      if (!status.ok()) return status;
      if (first / kBatch % 16 == 0) {
        std::printf("  pass %d: %lld images, %.0f s, peak %.2f GiB\n", pass_,
                    static_cast<long long>(first + n), Seconds() - start,
                    PeakGiB());
        std::fflush(stdout);
      }
    }
    ++pass_;
    return absl::OkStatus();
  }
  absl::Status ForEachBatch(
      const std::string&,
      const std::function<absl::Status(const Batch&)>& visit) override {
    return ForEachBatch(visit);
  }
  absl::Status ForEachText(
      const std::string&,
      const std::function<void(const TextRecord&)>&) override {
    return absl::OkStatus();
  }
  std::unique_ptr<Forward> MakeForward(const Batch& batch) override {
    return std::make_unique<Forward>(batch, providers_, nullptr,
                                     ForwardOptions());
  }
  int64_t skipped() const override { return 0; }
  std::string output_folder() const override { return folder_; }
  uint64_t seed() const override { return 1; }

 private:
  int64_t images_;
  std::string folder_;
  int pass_ = 1;
  Provider itc_, visual_, text_, itm_;
  Providers providers_;
};

int Run(int64_t images, int64_t top_k) {
  c10::InferenceMode no_gradients;
  const char* folder = std::getenv("TMPDIR");
  Context context(images, folder == nullptr ? "/tmp" : folder);
  RetrievalConfig config;
  config.set_rerank_top_k(top_k);
  PluginContext plugin;
  plugin.instance = "retrieval_scale";
  auto task = MakeRetrieval(config, plugin);
  if (!task.ok()) return 1;
  const double before = PeakGiB(), start = Seconds();
  const auto result = (*task)->Evaluate(context);
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n",
                 std::string(result.status().message()).c_str());
    return 1;
  }
  std::printf(
      "%lld images, %lld texts, top %lld: %.0f s, peak %.2f GiB, of it %.2f "
      "before\n",
      static_cast<long long>(images),
      static_cast<long long>(images * kCaptions), static_cast<long long>(top_k),
      Seconds() - start, PeakGiB(), before);
  return 0;
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  return semvq::Run(argc > 1 ? std::atoll(argv[1]) : 5000,
                    argc > 2 ? std::atoll(argv[2]) : 256);
}
