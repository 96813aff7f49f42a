#include "trainer/plan.h"

#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "core/metrics/table.h"
#include "core/random/stream.h"
#include "trainer/evaluation.h"
#include "trainer/made_tokenizer.h"
#include "trainer/step_meter.h"

namespace semvq {
namespace {

constexpr int kWarmSteps = 1;
constexpr int kTimedSteps = 3;
// Fewer are timed when one takes longer than this share of it.
constexpr double kTimedSeconds = 60;
// Batches that memory is measured with. Hard negatives need two images.
constexpr int64_t kSmallBatch = 2, kLargeBatch = 4;
// Of what the machine has left, the share that a batch may take by estimate.
constexpr double kMemoryShare = 0.9;
// Of BERT's uncased vocabulary, when its file is not there to be counted.
constexpr int64_t kBertVocabulary = 30522;
constexpr double kGiB = 1 << 30;

// Vendors' data sheets: dense products, bfloat16 (V100: float16) with float32
// sums, at boost clock.
struct Accelerator {
  const char* name;
  double peak;    // Operations a second.
  double memory;  // Bytes.
};
constexpr Accelerator kAccelerators[] = {
    {"H100 SXM 80 GB", 989e12, 80e9},
    {"A100 SXM 80 GB", 312e12, 80e9},
    {"RTX 4090 24 GB", 165e12, 24e9},
    {"V100 SXM 32 GB (fp16)", 125e12, 32e9},
};
// An assumption: well-made training of models of this size on them reports 30
// to 50 %.
constexpr double kUtilisation = 0.35;

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
  return bytes >= kGiB ? absl::StrFormat("%.2f GiB", bytes / kGiB)
                       : absl::StrFormat("%.1f MiB", bytes / (1 << 20));
}

std::string Giga(double flops) { return absl::StrFormat("%.4g", flops / 1e9); }

// Images of a sample: what a plugin asks for by the batch key "images:2", else
// one.
int64_t ImageSlots(const ContractBook& book) {
  int64_t slots = 1;
  for (const auto& [instance, contract] : book.all()) {
    for (absl::string_view key : contract.batch_keys) {
      int64_t wanted = 0;
      if (absl::ConsumePrefix(&key, "images:") &&
          absl::SimpleAtoi(key, &wanted)) {
        slots = std::max(slots, wanted);
      }
    }
  }
  return slots;
}

Batch RandomBatch(const StageSetup& setup, const DataStream& stream,
                  int64_t images, int64_t number) {
  const Experiment& e = setup.experiment;
  const int64_t texts = images * std::max(1, stream.texts_per_image());
  const int64_t side = stream.transform().size();
  const int64_t length = e.text().max_tokens();
  at::manual_seed(StreamKey(e.seed(), "plan", number));
  Batch batch;
  batch.images = at::randn({images, ImageSlots(setup.book), 3, side, side});
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

// One optimizer step on `images` random images; seconds it took.
absl::StatusOr<double> TimedStep(Trainer& trainer, const StageSetup& setup,
                                 const DataStream& stream, int64_t images,
                                 int64_t number) {
  const Batch batch = RandomBatch(setup, stream, images, number);
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<Trainer::StepReport> report = trainer.Step({batch});
  if (!report.ok()) return report.status();
  if (!report->nonfinite.empty()) {
    return absl::InternalError(absl::StrCat(
        report->nonfinite, " is not finite on random pixels and words"));
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

// Operations for an image, with its texts and its share of the rest.
struct Work {
  Flops forward, no_grad, backward;
  std::map<std::string, Flops> by_instance;

  Flops Sum() const {
    Flops sum = forward;
    sum += no_grad;
    sum += backward;
    return sum;
  }
};

Flops PerImage(Flops flops, double images) {
  flops.matmul /= images;
  flops.attention /= images;
  flops.convolution /= images;
  return flops;
}

Work ReadWork(const StepMeter& meter, double images) {
  Work work;
  work.forward = PerImage(meter.flops(StepMeter::kForward), images);
  work.no_grad = PerImage(meter.flops(StepMeter::kNoGrad), images);
  work.backward = PerImage(meter.flops(StepMeter::kBackward), images);
  for (const auto& [instance, flops] : meter.forward_by_scope()) {
    work.by_instance[instance] = PerImage(flops, images);
  }
  return work;
}

std::string InstanceTable(Model& model, const Work& work) {
  Table table(
      {"instance", "parameters", "trained", "weights", "forward GFLOP/image"});
  int64_t sum = 0, trained_sum = 0;
  double bytes_sum = 0;
  for (const auto& child : model.named_children()) {
    int64_t count = 0, trained = 0;
    double bytes = 0;
    for (const at::Tensor& p : child.value()->parameters()) {
      count += p.numel();
      trained += p.requires_grad() ? p.numel() : 0;
      bytes += static_cast<double>(p.nbytes());
    }
    auto found = work.by_instance.find(child.key());
    table.AddRow(
        {child.key(), absl::StrCat(count), absl::StrCat(trained), Bytes(bytes),
         found == work.by_instance.end() ? "0" : Giga(found->second.total())});
    sum += count;
    trained_sum += trained;
    bytes_sum += bytes;
  }
  table.AddRule();
  table.AddRow({"all", absl::StrCat(sum), absl::StrCat(trained_sum),
                Bytes(bytes_sum),
                Giga(work.forward.total() + work.no_grad.total())});
  return table.Render();
}

std::string WorkTable(const Work& work) {
  Table table({"GFLOP/image", "products", "attention", "convolution", "all"});
  const auto add = [&table](const char* name, const Flops& f) {
    table.AddRow({name, Giga(f.matmul), Giga(f.attention), Giga(f.convolution),
                  Giga(f.total())});
  };
  add("forward", work.forward);
  add("forward without gradient (teacher)", work.no_grad);
  add("backward", work.backward);
  table.AddRule();
  add("all", work.Sum());
  return absl::StrCat(
      table.Render(),
      "  counted as executed, a multiply-add as 2; not counted: elementwise "
      "operators,\n  norms, softmax, the optimizer, the codebook's search\n");
}

std::string MemoryTable(const MemoryPlan& memory, int64_t batch, bool bf16,
                        bool teacher) {
  const double images = static_cast<double>(batch);
  Table table({"memory", "size"});
  table.AddRow({"weights (float32)", Bytes(memory.weights)});
  table.AddRow({"gradients (float32)", Bytes(memory.gradients)});
  table.AddRow({"optimizer (float32)", Bytes(memory.optimizer)});
  if (teacher) table.AddRow({"teacher", Bytes(memory.teacher)});
  table.AddRow({"codebooks, queues, other buffers", Bytes(memory.buffers)});
  table.AddRow({absl::StrCat("activations, batch ", batch,
                             bf16 ? ", bfloat16 products" : ", float32"),
                Bytes(memory.activations_fixed +
                      memory.activations_per_image * images)});
  table.AddRule();
  table.AddRow({"all", Bytes(memory.Total(images))});
  return absl::StrFormat(
      "%s  activations: %s + %s an image, by a line through batches of %d and "
      "%d\n",
      table.Render(), Bytes(memory.activations_fixed),
      Bytes(memory.activations_per_image), kSmallBatch, kLargeBatch);
}

MemoryPlan StateMemory(Model& model, const Experiment& e) {
  MemoryPlan memory;
  double trained = 0;
  for (const at::Tensor& p : model.parameters()) {
    const double bytes = static_cast<double>(p.nbytes());
    memory.weights += bytes;
    if (p.requires_grad()) trained += bytes;
  }
  for (const at::Tensor& b : model.buffers()) {
    memory.buffers += static_cast<double>(b.nbytes());
  }
  memory.gradients = trained;
  memory.optimizer = 2 * trained;
  if (e.teacher().enabled()) memory.teacher = memory.weights + memory.buffers;
  return memory;
}

// Steps on batches of kSmallBatch and kLargeBatch images; what the meter then
// holds is of the last one. `number` counts the random batches.
absl::Status MeasureActivations(Trainer& trainer, const StageSetup& setup,
                                const DataStream& stream, StepMeter& meter,
                                int64_t& number, MemoryPlan& memory) {
  // Twice the small batch: what is allocated once (gradients, the optimizer's
  // buffers, the codebook's start) is then there before.
  double activations[2] = {0, 0};
  for (int64_t images : {kSmallBatch, kSmallBatch, kLargeBatch}) {
    trainer.model().zero_grad();
    meter.Start();
    auto seconds = TimedStep(trainer, setup, stream, images, number++);
    if (!seconds.ok()) return seconds.status();
    activations[images == kLargeBatch ? 1 : 0] =
        static_cast<double>(std::max<int64_t>(
            meter.backward_start_bytes() - meter.start_bytes(), 0));
  }
  memory.activations_per_image =
      (activations[1] - activations[0]) / (kLargeBatch - kSmallBatch);
  memory.activations_fixed = std::max(
      0.0, activations[0] - memory.activations_per_image * kSmallBatch);
  return absl::OkStatus();
}

// Samples of the trained stream: counted where its files are there, else what
// the experiment expects; 0 when neither is known.
int64_t CountSamples(const StageSetup& setup, const DataStream& stream,
                     std::string& whence) {
  int64_t samples = 0;
  auto source = setup.streams->Open(setup.experiment, stream.name());
  if (source.ok()) {
    samples = (*source)->size();
    whence = "counted";
  } else {
    samples = stream.expected_samples();
    whence = "expected_samples; the files are not there";
  }
  return stream.limit() > 0 ? std::min(samples, stream.limit()) : samples;
}

std::string CostTable(const Experiment& e, const Work& work,
                      const MemoryPlan& memory, double samples_seen) {
  Table table({"accelerator", "peak TFLOP/s (published)", "largest batch",
               "days on 1", "on 8", "on 16"});
  for (const Accelerator& a : kAccelerators) {
    std::vector<std::string> row = {
        a.name, absl::StrFormat("%.0f", a.peak / 1e12),
        absl::StrCat(memory.LargestBatch(kMemoryShare * a.memory))};
    for (double gpus : {1.0, 8.0, 16.0}) {
      row.push_back(
          absl::StrFormat("%.2f", TrainingDays(samples_seen, work.Sum().total(),
                                               gpus, a.peak, kUtilisation)));
    }
    table.AddRow(std::move(row));
  }
  return absl::StrFormat(
      "%s  assumed: %.0f %% of the peak is reached, by every count of them, in "
      "%s;\n  the largest batch on one is by the memory above, measured with "
      "this machine's kernels\n",
      table.Render(), 100 * kUtilisation,
      e.trainer().bf16() ? "bfloat16"
                         : "bfloat16 (this stage asks for float32: slower)");
}

}  // namespace

int64_t MemoryPlan::LargestBatch(double bytes) const {
  const double left = bytes - Total(0);
  if (left <= 0 || activations_per_image <= 0) return 0;
  return static_cast<int64_t>(std::floor(left / activations_per_image));
}

double AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  double kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    if (key == "MemAvailable:") return 1024 * kilobytes;
    std::getline(file, unit);
  }
  return 0;
}

absl::StatusOr<MemoryPlan> MeasureMemory(const StageSetup& given) {
  StageSetup setup = given;
  setup.random_data = true;
  // This rank alone measures: the others are elsewhere.
  setup.group = nullptr;
  setup.activity = nullptr;
  auto stream =
      Streams::Find(setup.experiment, setup.experiment.trainer().stream());
  if (!stream.ok()) return stream.status();
  StepMeter meter(setup.device);
  absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(setup);
  if (!trainer.ok()) return trainer.status();
  MemoryPlan memory = StateMemory((*trainer)->model(), setup.experiment);
  int64_t number = 0;
  const absl::Status status =
      MeasureActivations(**trainer, setup, **stream, meter, number, memory);
  if (!status.ok()) return status;
  return memory;
}

std::string FormatMemory(const MemoryPlan& memory, const Experiment& e) {
  return MemoryTable(memory, e.trainer().batch_size(), e.trainer().bf16(),
                     e.teacher().enabled());
}

double TrainingDays(double samples, double flops, double gpus, double peak,
                    double utilisation) {
  return samples * flops / (gpus * peak * utilisation) / 86400;
}

absl::StatusOr<std::string> PlanStage(const StageSetup& given) {
  StageSetup setup = given;
  const Experiment& e = setup.experiment;
  if (!e.trainer().has_stream()) {
    return absl::StrCat("stage ", setup.name, " trains nothing\n");
  }
  auto found = Streams::Find(e, e.trainer().stream());
  if (!found.ok()) return found.status();
  const DataStream& stream = **found;
  int64_t vocabulary = 0;
  if (e.text().wordpiece().train_on_size() > 0) {
    auto words = MakeWordVocabulary(e, *setup.streams);
    vocabulary =
        words.ok() ? static_cast<int64_t>(words->size()) : kBertVocabulary;
  } else if (e.text().has_wordpiece()) {
    auto tokenizer = LoadWordPiece(e.text().wordpiece().vocab());
    vocabulary = tokenizer.ok() ? (*tokenizer)->vocab_size() : kBertVocabulary;
  } else if (e.text().has_sentencepiece()) {
    vocabulary = e.text().sentencepiece().vocab_size();
  }
  SizedTokenizer tokenizer(vocabulary);
  if (vocabulary > 0) setup.tokenizer = &tokenizer;
  setup.random_data = true;

  StepMeter meter(setup.device);
  absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(setup);
  if (!trainer.ok()) {
    return absl::StrCat("stage ", setup.name,
                        " is not planned: ", trainer.status().message(), "\n");
  }
  Model& model = (*trainer)->model();
  MemoryPlan memory = StateMemory(model, e);

  const int64_t batch = e.trainer().batch_size();
  int64_t number = 0;
  const absl::Status measured =
      MeasureActivations(**trainer, setup, stream, meter, number, memory);
  if (!measured.ok()) return measured;
  const Work work = ReadWork(meter, static_cast<double>(kLargeBatch));

  std::string out =
      absl::StrCat("stage ", setup.name, "\n", InstanceTable(model, work), "\n",
                   WorkTable(work), "\n", FormatMemory(memory, e));

  // The whole stage, elsewhere.
  const double images_a_step =
      static_cast<double>(batch) * e.trainer().accumulation();
  std::string whence;
  const int64_t samples = CountSamples(setup, stream, whence);
  const double steps =
      e.trainer().has_steps()
          ? static_cast<double>(e.trainer().steps())
          : std::ceil(e.trainer().epochs() * static_cast<double>(samples) /
                      images_a_step);
  absl::StrAppendFormat(&out, "\ntraining: %.0f steps of %.0f images", steps,
                        images_a_step);
  if (samples > 0) {
    absl::StrAppendFormat(&out, ", %.2f epochs of %d samples (%s)",
                          steps * images_a_step / static_cast<double>(samples),
                          samples, whence);
  }
  const double total = steps * images_a_step * work.Sum().total();
  if (steps > 0) {
    absl::StrAppendFormat(
        &out, ": %.3g FLOP in all,\n  without evaluation and checkpoints\n%s",
        total, CostTable(e, work, memory, steps * images_a_step));
  } else {
    absl::StrAppend(&out,
                    "; the number of samples is not known: set "
                    "expected_samples in the stream, or put its files there\n");
  }

  // Steps of the full size, here.
  const double available = setup.device.is_cpu() ? AvailableMemory() : 0;
  int64_t here = batch;
  if (available > 0) {
    // What is allocated by now would be allocated again.
    const double budget =
        kMemoryShare * available + static_cast<double>(meter.live_bytes());
    const int64_t largest = memory.LargestBatch(budget);
    if (largest < batch) {
      absl::StrAppendFormat(
          &out,
          "\na batch of %d does not fit the %s that are free here; by this "
          "estimate %d images do\n",
          batch, Bytes(available), largest);
      if (largest < kSmallBatch) return out;
      here = 1;
      while (2 * here <= largest) here *= 2;
    }
  }
  double seconds = 0;
  int timed = 0;
  meter.Start();
  for (int step = 0; step < kWarmSteps + kTimedSteps; ++step) {
    auto took = TimedStep(**trainer, setup, stream, here, number++);
    if (!took.ok()) return took.status();
    if (step < kWarmSteps && *took < kTimedSeconds) continue;
    seconds += *took;
    ++timed;
    if (seconds + seconds / timed > kTimedSeconds) break;
  }
  seconds /= timed;
  absl::StrAppendFormat(
      &out,
      "\non this %s: %.2f s for a step of %d images, mean of %d: %.2f "
      "images/s, %.0f GFLOP/s\n",
      setup.device.is_cpu() ? "CPU" : "GPU", seconds, here, timed,
      static_cast<double>(here) / seconds,
      static_cast<double>(here) * work.Sum().total() / seconds / 1e9);
  absl::StrAppendFormat(
      &out,
      "tensors at most %s (estimate for that batch: %s); peak memory of the "
      "process: %s\n",
      Bytes(static_cast<double>(meter.peak_bytes())),
      Bytes(memory.Total(static_cast<double>(here))),
      Bytes(static_cast<double>(PeakMemoryBytes())));
  if (steps > 0) {
    absl::StrAppendFormat(
        &out, "the stage would take %.2f days here, without data\n",
        steps * images_a_step / static_cast<double>(here) * seconds / 86400);
  }
  return out;
}

}  // namespace semvq
