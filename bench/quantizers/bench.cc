// SemVQ's side of bench/quantizers: does one measured operation per line of its
// input and answers with one line of JSON, so that compare.py can take turns
// between this process and the peers in its own.
//
//   device cpu|cuda            where tensors are put; before `load`
//   threads T
//   load FEATURES N CODEBOOK K D   raw float32 files, row by row
//   assign l2|cosine float|bfloat16 [CODES]
//                              nearest codes, written as raw int64 to CODES
//   train [CODES]              one step of vq_ema: forward, backward, update
//   memory assign|train ...    the same, with the most memory it took beyond
//                              what was held before
//
// Answers: {"wall": seconds, "cpu": seconds of all threads} or {"extra": bytes}
// or {"error": text}.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <malloc.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/cpu_seconds.h"
#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "kernels/assign.h"
#include "quantizers/vq_ema/vq_ema.h"

namespace semvq {
namespace {

// A field of /proc/self/status, in bytes.
int64_t Status(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field + ":", 0) == 0)
      return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc/self/status has no " + field);
}

template <class T>
std::vector<T> ReadFile(const std::string& path, int64_t count) {
  std::vector<T> values(count);
  std::ifstream file(path, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(count * sizeof(T));
  file.read(reinterpret_cast<char*>(values.data()), bytes);
  if (file.gcount() != bytes) {
    throw std::runtime_error(path + ": expected " + std::to_string(bytes) +
                             " bytes, got " + std::to_string(file.gcount()));
  }
  return values;
}

class Bench {
 public:
  // The answer to one line.
  std::string Do(const std::string& line) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "device") {
      words >> word;
      device_ = at::Device(word);
    } else if (word == "threads") {
      int threads = 1;
      words >> threads;
      at::set_num_threads(threads);
    } else if (word == "load") {
      Load(words);
    } else if (word == "memory") {
      words >> word;
      return Memory(Operation(word, words));
    } else {
      return Time(Operation(word, words));
    }
    return "{}";
  }

 private:
  using Step = std::function<at::Tensor()>;  // Gives the codes.

  void Load(std::istringstream& words) {
    std::string features, codebook;
    int64_t n = 0, k = 0, d = 0;
    words >> features >> n >> codebook >> k >> d;
    const auto read = [&](const std::string& path, int64_t rows) {
      std::vector<float> values = ReadFile<float>(path, rows * d);
      return at::from_blob(values.data(), {rows, d}, at::kFloat)
          .clone()
          .to(device_);
    };
    features_ = read(features, n);
    codebook_ = read(codebook, k);
    weights_ = at::cos(at::arange(n * d, features_.options())).view({n, d});
    quantizer_.reset();
    step_ = 0;
  }

  Step Operation(const std::string& name, std::istringstream& words) {
    if (!features_.defined()) throw std::runtime_error("nothing is loaded");
    if (name == "assign") {
      std::string metric_name, dtype;
      words >> metric_name >> dtype >> codes_file_;
      if (metric_name != "l2" && metric_name != "cosine")
        throw std::runtime_error("unknown metric " + metric_name);
      const Metric metric =
          metric_name == "cosine" ? Metric::kCosine : Metric::kL2;
      const at::ScalarType type =
          dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
      const at::Tensor z = features_.to(type), e = codebook_.to(type);
      return [=] { return AssignNearest(z, e, metric); };
    }
    if (name == "train") {
      words >> codes_file_;
      MakeQuantizer();
      return [this] { return Train(); };
    }
    throw std::runtime_error("unknown operation " + name);
  }

  // vq_ema with its default options, as if it had been initialised with the
  // codebook that was loaded.
  void MakeQuantizer() {
    if (quantizer_ != nullptr) return;
    VqEmaConfig config;
    config.set_num_codes(codebook_.size(0));
    Contract host;
    host.provides = {{kQuantized, codebook_.size(1)}};
    ContractBook book;
    book.Add("bench", host);
    PluginContext context;
    context.instance = "bench";
    context.seed = 1;
    context.book = &book;
    auto made = MakeVqEma(config, context);
    if (!made.ok())
      throw std::runtime_error(std::string(made.status().message()));
    quantizer_ = *std::move(made);
    quantizer_->to(device_);
    c10::NoGradGuard no_grad;
    Buffer("codebook").copy_(codebook_);
    Buffer("ema_sum").copy_(codebook_);
    Buffer("initialised").fill_(1);
  }

  // By its name within whatever module holds it.
  at::Tensor Buffer(const std::string& name) {
    for (const auto& item : quantizer_->named_buffers()) {
      const std::string& key = item.key();
      if (key == name ||
          (key.size() > name.size() &&
           key.substr(key.size() - name.size() - 1) == "." + name))
        return item.value();
    }
    throw std::runtime_error("vq_ema has no buffer " + name);
  }

  // What a training step does with the quantizer.
  at::Tensor Train() {
    QuantizeContext context;
    context.mode = QuantizeMode::kTrain;
    context.step = step_++;
    const at::Tensor z = features_.unsqueeze(0).detach().requires_grad_(true);
    const Quantized out = quantizer_->Quantize(z, context);
    at::Tensor loss = (out.vectors * weights_).sum();
    for (const auto& [name, value] : out.losses) loss = loss + value;
    loss.backward();
    const absl::Status status = quantizer_->AfterStep(context);
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
    if (!z.grad().defined()) throw std::runtime_error("no gradient");
    return out.codes.reshape({-1});
  }

  void Synchronize() const {
    if (device_.is_cpu()) return;
    c10::impl::VirtualGuardImpl(device_.type()).synchronizeDevice(0);
  }

  std::string Time(const Step& step) {
    Synchronize();
    const double cpu = CpuSeconds();
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor codes = step();
    Synchronize();
    const std::chrono::duration<double> wall =
        std::chrono::steady_clock::now() - start;
    const double used = CpuSeconds() - cpu;
    if (!codes_file_.empty()) {
      const at::Tensor host = codes.cpu().contiguous();
      std::ofstream(codes_file_, std::ios::binary)
          .write(reinterpret_cast<const char*>(host.const_data_ptr<int64_t>()),
                 static_cast<std::streamsize>(host.nbytes()));
      codes_file_.clear();
    }
    std::ostringstream out;
    out << "{\"wall\": " << wall.count() << ", \"cpu\": " << used << "}";
    return out.str();
  }

  // Of the process, so only of what runs on the CPU.
  std::string Memory(const Step& step) {
    malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";  // Resets the peak.
    const int64_t before = Status("VmRSS");
    step();
    std::ostringstream out;
    out << "{\"extra\": " << Status("VmHWM") - before << "}";
    return out.str();
  }

  at::Device device_ = at::kCPU;
  at::Tensor features_, codebook_, weights_;
  std::shared_ptr<Quantizer> quantizer_;
  int64_t step_ = 0;
  std::string codes_file_;
};

}  // namespace
}  // namespace semvq

int main() {
  semvq::Bench bench;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << bench.Do(line) << std::endl;
    } catch (const std::exception& error) {
      std::string text = error.what();
      text = text.substr(0, text.find('\n'));
      for (char& c : text) {
        if (c == '"' || c == '\\') c = '\'';
      }
      std::cout << "{\"error\": \"" << text << "\"}" << std::endl;
    }
  }
}
