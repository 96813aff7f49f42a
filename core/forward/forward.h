// Forward wraps one batch and computes each view at most once, when somebody
// first asks for it.
#ifndef SEMVQ_CORE_FORWARD_FORWARD_H_
#define SEMVQ_CORE_FORWARD_FORWARD_H_

#include <any>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/forward/batch.h"
#include "core/forward/views.h"

namespace semvq {

class Communicator;  // core/distributed/communicator.h
class Forward;

// Anything that can compute views. Called once per key and batch; may ask
// `forward` for other views, with the same variant where they depend on
// parameters. A view that the instance's contract does not list is never asked
// for.
class ViewProvider {
 public:
  virtual ~ViewProvider() = default;
  virtual std::any ComputeView(const ViewKey& key, Forward& forward);
};

// Providers by instance name.
using Providers = std::map<std::string, ViewProvider*>;

struct ForwardOptions {
  bool training = false;
  uint64_t seed = 1;
  int64_t step = 0;  // Optimizer steps done.
  // The ranks whose batches make one; null: this one alone. Must outlive the
  // Forward.
  Communicator* group = nullptr;
};

class Forward {
 public:
  // `batch`, `student` and `teacher` (null: no teacher) must outlive the
  // Forward.
  Forward(const Batch& batch, const Providers& student,
          const Providers* teacher, ForwardOptions options)
      : batch_(batch),
        student_(student),
        teacher_(teacher),
        options_(options) {}
  Forward(const Forward&) = delete;
  Forward& operator=(const Forward&) = delete;

  // The view's value; computed on the first request. T must be the type the
  // view is documented with. Throws c10::Error when the instance or view does
  // not exist, the type differs, or views depend on each other in a circle:
  // contracts rule that out for every experiment that validates.
  template <class T>
  const T& Get(const ViewKey& key) {
    const std::any& value = Compute(key);
    const T* typed = std::any_cast<T>(&value);
    if (typed == nullptr) ThrowWrongType(key, typeid(T).name());
    return *typed;
  }

  const Batch& batch() const { return batch_; }
  bool training() const { return options_.training; }
  bool has_teacher() const { return teacher_ != nullptr; }
  uint64_t seed() const { return options_.seed; }
  int64_t step() const { return options_.step; }
  Communicator* group() const { return options_.group; }

  // Puts a view's value in place, so that nobody computes it: values that were
  // computed over other batches (retrieval's reranking), come with another view
  // (the fused tokens with their attention maps) or are made up (tests).
  // What is set counts as Has() and not as computed().
  void Set(const ViewKey& key, std::any value) {
    values_.insert_or_assign(key, std::move(value));
  }

  bool Has(const ViewKey& key) const { return values_.count(key) > 0; }
  // Keys in the order in which their computation ended.
  const std::vector<ViewKey>& computed() const { return computed_; }

 private:
  const std::any& Compute(const ViewKey& key);
  [[noreturn]] static void ThrowWrongType(const ViewKey& key,
                                          const char* wanted);

  const Batch& batch_;
  const Providers& student_;
  const Providers* teacher_;
  ForwardOptions options_;
  std::map<ViewKey, std::any> values_;
  std::set<ViewKey> pending_;
  std::vector<ViewKey> computed_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_FORWARD_H_
