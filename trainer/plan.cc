#include "trainer/plan.h"

#include <torch/types.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/metrics/table.h"
#include "core/random/stream.h"
#include "trainer/evaluation.h"

namespace semvq {
namespace {

constexpr int kWarmSteps = 1;
constexpr int kTimedSteps = 3;
// Of BERT's uncased vocabulary, when its file is not there to be counted.
constexpr int64_t kBertVocabulary = 30522;

// Stands for a tokenizer whose data are not there: it has its size.
class SizedTokenizer : public Tokenizer {
 public:
  explicit SizedTokenizer(int64_t size)
      : Tokenizer({/*pad=*/0, /*unk=*/1, /*cls=*/2, /*sep=*/3, /*mask=*/4}),
        size_(size) {}
  std::vector<int64_t> Encode(absl::string_view) const override { return {}; }
  std::string Decode(absl::Span<const int64_t>) const override { return ""; }
  std::string Piece(int64_t) const override { return ""; }
  int64_t vocab_size() const override { return size_; }
  std::string fingerprint() const override { return ""; }

 private:
  int64_t size_;
};

std::string Bytes(double bytes) {
  return bytes >= 1 << 30 ? absl::StrFormat("%.2f GiB", bytes / (1 << 30))
                          : absl::StrFormat("%.1f MiB", bytes / (1 << 20));
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, pages = 0;
  statm >> size >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

Batch RandomBatch(const StageSetup& setup, const DataStream& stream,
                  int64_t number) {
  const Experiment& e = setup.experiment;
  const int64_t images = e.trainer().batch_size();
  const int64_t texts = images * std::max(1, stream.texts_per_image());
  const int64_t side = stream.transform().size();
  const int64_t length = e.text().max_tokens();
  at::manual_seed(StreamKey(e.seed(), "plan", number));
  Batch batch;
  batch.images = at::randn({images, 1, 3, side, side});
  const int64_t vocabulary =
      setup.tokenizer == nullptr ? 6 : setup.tokenizer->vocab_size();
  batch.text_ids = at::randint(5, vocabulary, {texts, length}, at::kLong);
  if (setup.tokenizer != nullptr) {
    batch.text_ids.select(1, 0).fill_(setup.tokenizer->cls_id());
    batch.text_ids.select(1, length - 1).fill_(setup.tokenizer->sep_id());
  }
  batch.text_mask = at::ones({texts, length}, at::kBool);
  batch.text_to_image = at::arange(images).repeat_interleave(texts / images);
  batch.texts.resize(texts);
  for (int64_t i = 0; i < images; ++i) {
    batch.image_ids.push_back(absl::StrCat(i));
    batch.sample_numbers.push_back(number * images + i);
  }
  return batch;
}

std::string ParameterTable(Model& model) {
  Table table({"instance", "parameters", "weights"});
  int64_t sum = 0;
  for (const auto& child : model.named_children()) {
    int64_t n = 0;
    for (const at::Tensor& p : child.value()->parameters()) n += p.numel();
    sum += n;
    table.AddRow(
        {child.key(), absl::StrCat(n), Bytes(4.0 * static_cast<double>(n))});
  }
  table.AddRow(
      {"all", absl::StrCat(sum), Bytes(4.0 * static_cast<double>(sum))});
  return table.Render();
}

}  // namespace

absl::StatusOr<std::string> PlanStage(const StageSetup& given) {
  StageSetup setup = given;
  const Experiment& e = setup.experiment;
  if (!e.trainer().has_stream()) {
    return absl::StrCat("stage ", setup.name, " trains nothing\n");
  }
  auto stream = Streams::Find(e, e.trainer().stream());
  if (!stream.ok()) return stream.status();
  int64_t vocabulary = 0;
  if (e.text().has_wordpiece()) {
    auto tokenizer = LoadWordPiece(e.text().wordpiece().vocab());
    vocabulary = tokenizer.ok() ? (*tokenizer)->vocab_size() : kBertVocabulary;
  } else if (e.text().has_sentencepiece()) {
    vocabulary = e.text().sentencepiece().vocab_size();
  }
  SizedTokenizer tokenizer(vocabulary);
  if (vocabulary > 0) setup.tokenizer = &tokenizer;
  setup.random_data = true;

  absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(setup);
  if (!trainer.ok()) {
    return absl::StrCat("stage ", setup.name,
                        " is not planned: ", trainer.status().message(), "\n");
  }
  Model& model = (*trainer)->model();
  int64_t parameters = 0, buffers = 0;
  for (const at::Tensor& p : model.parameters()) parameters += p.nbytes();
  for (const at::Tensor& b : model.buffers()) buffers += b.nbytes();

  std::string out =
      absl::StrCat("stage ", setup.name, "\n", ParameterTable(model));
  const int64_t resident = ResidentBytes();
  double seconds = 0;
  for (int step = 0; step < kWarmSteps + kTimedSteps; ++step) {
    std::vector<Batch> batches;
    for (int micro = 0; micro < e.trainer().accumulation(); ++micro) {
      batches.push_back(RandomBatch(setup, **stream,
                                    step * e.trainer().accumulation() + micro));
    }
    const auto start = std::chrono::steady_clock::now();
    absl::StatusOr<Trainer::StepReport> report = (*trainer)->Step(batches);
    if (!report.ok()) return report.status();
    if (step >= kWarmSteps) {
      seconds += std::chrono::duration<double>(
                     std::chrono::steady_clock::now() - start)
                     .count() /
                 kTimedSteps;
    }
  }
  const double activations = std::max<double>(
      0, static_cast<double>(PeakMemoryBytes() - resident - parameters));
  Table memory({"memory", "size"});
  memory.AddRow({"weights", Bytes(static_cast<double>(parameters))});
  memory.AddRow({"gradients", Bytes(static_cast<double>(parameters))});
  memory.AddRow({"optimizer", Bytes(2.0 * static_cast<double>(parameters))});
  if (e.teacher().enabled()) {
    memory.AddRow({"teacher", Bytes(static_cast<double>(parameters))});
  }
  memory.AddRow({"codebooks, queues", Bytes(static_cast<double>(buffers))});
  memory.AddRow({"activations (measured)", Bytes(activations)});
  memory.AddRow({"process peak (measured)",
                 Bytes(static_cast<double>(PeakMemoryBytes()))});
  absl::StrAppend(&out, memory.Render());
  const double images = static_cast<double>(e.trainer().batch_size()) *
                        e.trainer().accumulation();
  absl::StrAppendFormat(
      &out,
      "step: %.1f ms for %.0f images (%.1f images/s), mean of %d steps; "
      "%lld steps: %.1f min, without data, evaluation and checkpoints\n",
      1e3 * seconds, images, images / seconds, kTimedSteps,
      static_cast<long long>((*trainer)->total_steps()),
      seconds * static_cast<double>((*trainer)->total_steps()) / 60);
  return out;
}

}  // namespace semvq
