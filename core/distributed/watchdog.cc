#include "core/distributed/watchdog.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/distributed/launch.h"

namespace semvq {
namespace {

using std::chrono::milliseconds;

constexpr char kFailed[] = "failed";

std::string BeatKey(int64_t rank) { return absl::StrCat("beat/", rank); }
std::string LeftKey(int64_t rank) { return absl::StrCat("left/", rank); }

std::string Slurp(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Processes of equal answers see each other's numbers: the kernel's start and
// the name space of processes.
std::string Machine() {
  struct stat space = {};
  stat("/proc/self/ns/pid", &space);
  return absl::StrCat(
      absl::StripAsciiWhitespace(Slurp("/proc/sys/kernel/random/boot_id")), ":",
      space.st_ino);
}

// Gone, or only waiting to be reaped.
bool ProcessIsDead(int64_t pid) {
  const std::string stat = Slurp(absl::StrCat("/proc/", pid, "/stat"));
  if (stat.empty()) return access("/proc/self/stat", F_OK) == 0;
  // "123 (name) S ...": the name may hold anything.
  const size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && name_end + 2 < stat.size() &&
         (stat[name_end + 2] == 'Z' || stat[name_end + 2] == 'X');
}

// Who told, and what.
using Told = std::pair<std::string, std::string>;

int64_t NowMs() {
  return std::chrono::duration_cast<milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double Seconds(milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

std::string Where(const ActivitySnapshot& activity) {
  return absl::StrCat(
      "step ", activity.step < 0 ? "-" : absl::StrCat(activity.step), ", ",
      activity.doing.empty() ? "between two phases" : activity.doing);
}

}  // namespace

// For as long as a request to the store is under way. A store whose server
// stands still answers no request, and c10d then waits for ever.
class Watchdog::Request {
 public:
  explicit Request(Watchdog* watchdog)
      : watchdog_(watchdog), lock_(watchdog->store_mutex_) {
    watchdog_->request_since_ = NowMs();
  }
  ~Request() { watchdog_->request_since_ = 0; }

 private:
  Watchdog* watchdog_;
  std::lock_guard<std::mutex> lock_;
};

Watchdog::Watchdog(c10::intrusive_ptr<c10d::Store> store,
                   const Activity* activity, WatchdogOptions options,
                   std::function<void(const std::string&)> on_lost)
    : store_(std::move(store)),
      activity_(activity),
      options_(std::move(options)),
      on_lost_(std::move(on_lost)),
      machine_(Machine()),
      next_changed_(std::chrono::steady_clock::now()) {
  watch_ = std::thread([this] { Watch(); });
  guard_ = std::thread([this] { Guard(); });
}

Watchdog::~Watchdog() { Stop(); }

void Watchdog::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (watch_.joinable()) watch_.join();
  if (guard_.joinable()) guard_.join();
}

bool Watchdog::Sleep(milliseconds time) {
  std::unique_lock<std::mutex> lock(mutex_);
  return !changed_.wait_for(lock, time,
                            [this] { return stopping_ || loss_.has_value(); });
}

void Watchdog::Notice(const std::string& what) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!loss_.has_value()) loss_ = what;
  }
  changed_.notify_all();
}

void Watchdog::Watch() {
  do {
    std::optional<std::string> noticed;
    try {
      noticed = Look();
    } catch (const std::exception&) {
      // No request will succeed any more, so nobody can be told.
      noticed = absl::StrCat(options_.served_by, " is gone");
    }
    if (noticed.has_value()) Notice(*noticed);
  } while (Sleep(options_.beat));
}

void Watchdog::Guard() {
  while (Sleep(options_.beat)) {
    const int64_t since = request_since_;
    if (since != 0 && NowMs() - since > options_.silence.count()) {
      Notice(absl::StrCat(options_.served_by, " does not answer"));
    }
  }
  std::optional<std::string> loss;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!stopping_) loss = loss_;
  }
  if (loss.has_value()) on_lost_(*loss);
}

std::optional<std::string> Watchdog::Look() {
  SendBeat();
  if (options_.size == 1) return std::nullopt;
  std::optional<std::string> noticed = ToldByOthers();
  if (noticed.has_value()) return noticed;
  noticed = LookAtNext();
  if (!noticed.has_value()) noticed = LookAtOwnWait();
  if (!noticed.has_value()) return std::nullopt;
  // Of two that notice at once, all repeat what the first says.
  return TellFailure(*noticed);
}

std::optional<std::string> Watchdog::ToldByOthers() {
  const std::optional<std::string> told = ReadKey(kFailed);
  if (!told.has_value()) return std::nullopt;
  const Told parts = absl::StrSplit(*told, absl::MaxSplits('\n', 1));
  // What this rank told itself is no news.
  if (parts.first == absl::StrCat(options_.rank)) return std::nullopt;
  return parts.second;
}

std::string Watchdog::TellFailure(const std::string& message) {
  try {
    const std::string mine = absl::StrCat(options_.rank, "\n", message);
    Request request(this);
    const std::string told = store_->compareSet(kFailed, "", mine);
    return Told(absl::StrSplit(told, absl::MaxSplits('\n', 1))).second;
  } catch (const std::exception&) {
    return message;  // Nobody can be told.
  }
}

std::optional<std::string> Watchdog::LookAtNext() {
  const int64_t next = (options_.rank + 1) % options_.size;
  const auto now = std::chrono::steady_clock::now();
  const std::optional<std::string> text = ReadKey(BeatKey(next));
  if (text.has_value() && *text != next_beat_) {
    next_beat_ = *text;
    next_changed_ = now;
  }
  const bool dead = IsDead(ReadBeat(next));
  if (!dead && now - next_changed_ < options_.silence) return std::nullopt;
  const std::vector<int64_t> silent = SilentRanks(dead);
  if (silent.empty()) return std::nullopt;
  return DescribeSilent(silent);
}

// A machine that is lost takes several ranks with it, so all are looked at. One
// that has just gone on after a pause of this machine is not silent.
std::vector<int64_t> Watchdog::SilentRanks(bool dead) {
  constexpr int kBeats = 5;
  const int64_t next = (options_.rank + 1) % options_.size;
  std::vector<std::string> before(options_.size);
  for (int64_t r = 0; r < options_.size; ++r) {
    before[r] = ReadKey(BeatKey(r)).value_or("");
  }
  for (int i = 0; i < (dead ? 1 : kBeats); ++i) {
    if (!Sleep(options_.beat)) return {};
    SendBeat();
  }
  std::vector<int64_t> silent;
  for (int64_t r = 0; r < options_.size; ++r) {
    if (r == options_.rank || HasLeft(r)) continue;
    const std::optional<Beat> beat = ReadBeat(r);
    const bool here = beat.has_value() && beat->machine == machine_;
    const bool unheard = !dead && (r == next || !here) &&
                         ReadKey(BeatKey(r)).value_or("") == before[r];
    if (unheard || IsDead(beat)) silent.push_back(r);
  }
  return silent;
}

std::string Watchdog::DescribeSilent(const std::vector<int64_t>& ranks) {
  std::vector<std::string> lines;
  bool dead = true;
  for (const int64_t r : ranks) {
    const std::optional<Beat> beat = ReadBeat(r);
    dead = dead && IsDead(beat);
    lines.push_back(beat.has_value()
                        ? absl::StrCat("  rank ", r, ", process ", beat->pid,
                                       ": ", Where(beat->activity))
                        : absl::StrCat("  rank ", r, ": never heard of"));
  }
  const char* has = ranks.size() == 1 ? " has" : " have";
  return absl::StrCat(
      RankNames(ranks), has,
      dead ? " died (its process is gone, killed or crashed)"
           : absl::StrCat(" not been heard of for ", Seconds(options_.silence),
                          " s: dead, stopped, or cut off"),
      "; the last that was seen:\n", absl::StrJoin(lines, "\n"));
}

bool Watchdog::IsDead(const std::optional<Beat>& beat) const {
  return beat.has_value() && beat->machine == machine_ &&
         ProcessIsDead(beat->pid);
}

std::optional<std::string> Watchdog::LookAtOwnWait() {
  const ActivitySnapshot own = activity_->Snapshot();
  if (!own.waits || own.seconds < Seconds(options_.timeout)) {
    return std::nullopt;
  }
  return DescribeLate(own);
}

std::string Watchdog::DescribeLate(const ActivitySnapshot& own) {
  std::vector<int64_t> late;
  std::vector<std::string> lines;
  for (int64_t r = 0; r < options_.size; ++r) {
    if (r == options_.rank) continue;
    const std::optional<Beat> beat = ReadBeat(r);
    if (!beat.has_value()) {
      late.push_back(r);
      lines.push_back(absl::StrCat("  rank ", r, ": never heard of"));
      continue;
    }
    const ActivitySnapshot& its = beat->activity;
    const bool behind = its.waits_entered < own.waits_entered ||
                        (!its.waits && its.waits_entered == own.waits_entered);
    if (behind) late.push_back(r);
    if (behind || own.doing != its.doing) {
      lines.push_back(absl::StrCat("  rank ", r, ": ", Where(its), " since ",
                                   static_cast<int64_t>(its.seconds), " s"));
    }
  }
  const std::string waits =
      absl::StrCat("rank ", options_.rank, " has waited ",
                   static_cast<int64_t>(own.seconds), " s in ", Where(own));
  if (late.empty()) {
    return absl::StrCat(
        waits,
        lines.empty()
            ? ", and so have all others: the network between them is stuck"
            : ", while others are elsewhere:\n",
        absl::StrJoin(lines, "\n"));
  }
  return absl::StrCat(RankNames(late), late.size() == 1 ? " is" : " are",
                      " late: ", waits, " (--collective_timeout is ",
                      Seconds(options_.timeout), ")\n",
                      absl::StrJoin(lines, "\n"));
}

void Watchdog::SendBeat() {
  const ActivitySnapshot now = activity_->Snapshot();
  const std::string text = absl::StrJoin(
      {absl::StrCat(++beats_), machine_, absl::StrCat(getpid()),
       absl::StrCat(now.step), absl::StrCat(now.waits ? 1 : 0),
       absl::StrCat(now.waits_entered),
       absl::StrCat(static_cast<int64_t>(now.seconds)), now.doing},
      "\t");
  Request request(this);
  store_->set(BeatKey(options_.rank), text);
}

std::optional<Watchdog::Beat> Watchdog::ReadBeat(int64_t rank) {
  const std::optional<std::string> text = ReadKey(BeatKey(rank));
  if (!text.has_value()) return std::nullopt;
  const std::vector<std::string> f =
      absl::StrSplit(*text, absl::MaxSplits('\t', 7));
  Beat beat;
  int64_t waits = 0, seconds = 0;
  if (f.size() != 8 || !absl::SimpleAtoi(f[2], &beat.pid) ||
      !absl::SimpleAtoi(f[3], &beat.activity.step) ||
      !absl::SimpleAtoi(f[4], &waits) ||
      !absl::SimpleAtoi(f[5], &beat.activity.waits_entered) ||
      !absl::SimpleAtoi(f[6], &seconds)) {
    return std::nullopt;
  }
  beat.machine = f[1];
  beat.activity.waits = waits != 0;
  beat.activity.seconds = static_cast<double>(seconds);
  beat.activity.doing = f[7];
  return beat;
}

std::optional<std::string> Watchdog::ReadKey(const std::string& key) {
  Request request(this);
  // Reading a key that is not there would wait for it.
  if (!store_->check({key})) return std::nullopt;
  return store_->get_to_str(key);
}

bool Watchdog::HasLeft(int64_t rank) {
  return ReadKey(LeftKey(rank)).has_value();
}

std::optional<std::string> Watchdog::WaitForLoss(
    milliseconds timeout, const std::function<bool()>& give_up) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!loss_.has_value() && std::chrono::steady_clock::now() < deadline &&
         !give_up()) {
    changed_.wait_for(lock, milliseconds(100));
  }
  return loss_;
}

void Watchdog::Leave() {
  Stop();
  try {
    Request request(this);
    store_->set(LeftKey(options_.rank), std::string("1"));
  } catch (const std::exception&) {
    // The store is gone: nobody is left to tell.
  }
}

void Watchdog::WaitUntilAllLeft(milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  try {
    for (int64_t r = 0; r < options_.size; ++r) {
      while (r != options_.rank && !HasLeft(r) &&
             std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::min(options_.beat, milliseconds(50)));
      }
    }
  } catch (const std::exception&) {
    // The store is gone, and with it whoever could be waited for.
  }
}

}  // namespace semvq
