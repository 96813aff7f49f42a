#include "core/distributed/rank_session.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/distributed/address.h"
#include "core/distributed/watched_group.h"

namespace semvq {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPoll(50);

// Names this process among all that ever use the store: torchrun keeps one over
// several starts of the ranks, with what the earlier ones wrote.
std::string NewToken() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8),
                      absl::Hex(random(), absl::kZeroPad8));
}

std::string Reason(const std::exception& e) {
  const auto* error = dynamic_cast<const c10::Error*>(&e);
  return error != nullptr ? error->what_without_backtrace() : e.what();
}

std::string HelloKey(int64_t rank) {
  return absl::StrCat("semvq/hello/", rank);
}
std::string WelcomeKey(const std::string& token) {
  return absl::StrCat("semvq/welcome/", token);
}
std::string JoinedKey(const std::string& session, int64_t rank) {
  return absl::StrCat("semvq/joined/", session, "/", rank);
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

// Thrown by c10d and its backends when a peer or its answer is lost.
bool IsOfACollective(const std::string& error) {
  for (const char* sign :
       {"gloo", "Gloo", "NCCL", "nccl", "onnection", "Broken pipe", "ocket",
        "imed out", "imeout", "c10d"}) {
    if (absl::StrContains(error, sign)) return true;
  }
  return false;
}

std::string Indented(const std::string& text) {
  return absl::StrJoin(absl::StrSplit(text, '\n'), "\n  ");
}

}  // namespace

RankSession::RankSession(const Launch& launch, RankSessionOptions options)
    : launch_(launch),
      options_(std::move(options)),
      serves_store_(!launch.agent_serves && launch.rank == 0) {}

RankSession::~RankSession() {
  // The group's threads first: they use the store.
  watchdog_.reset();
  group_.reset();
}

std::string RankSession::Place() const {
  return absl::StrCat(launch_.host, ":", launch_.port);
}

absl::StatusOr<std::unique_ptr<RankSession>> RankSession::Connect(
    const Launch& launch, RankSessionOptions options) {
  std::unique_ptr<RankSession> session(
      new RankSession(launch, std::move(options)));
  absl::Status status = session->OpenStore();
  if (!status.ok()) return status;
  try {
    status = session->Meet();
    if (!status.ok()) return status;
    WatchdogOptions watch;
    watch.rank = launch.rank;
    watch.size = launch.size;
    watch.timeout = session->options_.timeout;
    watch.served_by =
        launch.agent_serves
            ? absl::StrCat("torchrun's agent, which serves the store at ",
                           session->Place(), ",")
            : "rank 0, which serves the store,";
    session->watchdog_ = std::make_unique<Watchdog>(
        c10::make_intrusive<c10d::PrefixStore>(session->prefix_,
                                               session->NewStore()),
        &session->activity_, std::move(watch),
        [s = session.get()](const std::string& what) { s->OnLost(what); });
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("the ranks' store at ", session->Place(), ", served by ",
                     launch.agent_serves ? "torchrun's agent" : "rank 0",
                     ", was lost while they met: ", Reason(e)));
  }
  return session;
}

c10::intrusive_ptr<c10d::Store> RankSession::NewStore() const {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch_.port);
  options.isServer = false;
  options.waitWorkers = false;
  options.timeout = options_.timeout;
  return c10::make_intrusive<c10d::TCPStore>(launch_.host, options);
}

absl::Status RankSession::OpenStore() {
  try {
    if (!serves_store_) {
      server_ = NewStore();
      return absl::OkStatus();
    }
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(launch_.port);
    options.isServer = true;
    options.waitWorkers = false;
    options.timeout = options_.timeout;
    server_ = c10::make_intrusive<c10d::TCPStore>(launch_.host, options);
    return absl::OkStatus();
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat(
        "rank ", launch_.rank, " of ", launch_.size, " (", launch_.launcher,
        ") cannot ", serves_store_ ? "serve" : "reach", " the ranks' store at ",
        Place(),
        serves_store_ ? "; is the port taken, or the name another machine's? "
        : launch_.agent_serves
            ? "; does torchrun's first agent run there? "
            : "; does rank 0 run there, and does the network let it through? ",
        "Choose another place with MASTER_ADDR and MASTER_PORT. c10d says: ",
        Reason(e)));
  }
}

absl::Status RankSession::Meet() {
  const std::string token = NewToken();
  absl::StatusOr<std::string> session =
      launch_.rank == 0 ? MeetAsFirst(token) : MeetAsOther(token);
  if (!session.ok()) return session.status();
  prefix_ = absl::StrCat("semvq/", *session);
  store_ = c10::make_intrusive<c10d::PrefixStore>(prefix_, server_);
  return absl::OkStatus();
}

// Welcomes every process that says hello until all have joined. One that said
// it in an earlier start of the ranks is welcomed, too, and never joins.
absl::StatusOr<std::string> RankSession::MeetAsFirst(const std::string& token) {
  const auto deadline = steady_clock::now() + options_.timeout;
  std::vector<std::string> welcomed(launch_.size);
  std::vector<int64_t> missing;
  for (int64_t r = 1; r < launch_.size; ++r) missing.push_back(r);
  while (!missing.empty()) {
    for (const int64_t r : missing) {
      if (!server_->check({HelloKey(r)})) continue;
      const std::string hello = server_->get_to_str(HelloKey(r));
      if (hello == welcomed[r]) continue;
      server_->set(WelcomeKey(hello), token);
      welcomed[r] = hello;
    }
    missing.erase(std::remove_if(missing.begin(), missing.end(),
                                 [&](int64_t r) {
                                   return server_->check({JoinedKey(token, r)});
                                 }),
                  missing.end());
    if (missing.empty()) break;
    if (steady_clock::now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          RankNames(missing), " of ", launch_.size, " did not come to ",
          Place(), " within ", options_.timeout.count() / 1000,
          " s (--collective_timeout); did all processes "
          "start, on machines that reach this one?"));
    }
    std::this_thread::sleep_for(kPoll);
  }
  return token;
}

absl::StatusOr<std::string> RankSession::MeetAsOther(const std::string& token) {
  const auto deadline = steady_clock::now() + options_.timeout;
  server_->set(HelloKey(launch_.rank), token);
  while (!server_->check({WelcomeKey(token)})) {
    if (steady_clock::now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "rank 0 of ", launch_.size, " did not come to ", Place(), " within ",
          options_.timeout.count() / 1000,
          " s (--collective_timeout), where rank ", launch_.rank, " waits"));
    }
    std::this_thread::sleep_for(kPoll);
  }
  const std::string session = server_->get_to_str(WelcomeKey(token));
  server_->set(JoinedKey(session, launch_.rank), std::string("1"));
  return session;
}

absl::Status RankSession::CheckAlike(const std::string& what,
                                     const RankFacts& facts) {
  ActivityScope scope(&activity_, absl::StrCat("comparing ", what),
                      ActivityScope::Waits::kForAllRanks);
  const std::string key = absl::StrCat("alike/", checks_++, "/");
  std::string mine;
  for (const auto& [name, value] : facts) {
    absl::StrAppend(&mine, name, "\x1f", value, "\x1e");
  }
  store_->set(absl::StrCat(key, launch_.rank), mine);
  if (launch_.rank != 0) {
    const std::string verdict = store_->get_to_str(key + "verdict");
    return verdict.empty() ? absl::OkStatus()
                           : absl::FailedPreconditionError(verdict);
  }
  // For each fact and value the ranks that have it.
  std::vector<std::string> names;
  std::map<std::string, std::map<std::string, std::vector<int64_t>>> values;
  for (int64_t r = 0; r < launch_.size; ++r) {
    const std::string all = store_->get_to_str(absl::StrCat(key, r));
    for (absl::string_view fact :
         absl::StrSplit(all, '\x1e', absl::SkipEmpty())) {
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(fact, absl::MaxSplits('\x1f', 1));
      if (values.count(parts.first) == 0) names.push_back(parts.first);
      values[parts.first][parts.second].push_back(r);
    }
  }
  std::vector<std::string> differ;
  for (const std::string& name : names) {
    size_t having = 0;
    std::vector<std::string> lines;
    for (const auto& [value, ranks] : values[name]) {
      having += ranks.size();
      lines.push_back(absl::StrCat("    ", RankNames(ranks), ": ", value));
    }
    if (lines.size() == 1 && having == static_cast<size_t>(launch_.size)) {
      continue;
    }
    std::sort(lines.begin(), lines.end());
    differ.push_back(
        absl::StrCat("  ", name, "\n", absl::StrJoin(lines, "\n")));
  }
  std::string verdict;
  if (!differ.empty()) {
    verdict = absl::StrCat("the ranks differ in ", what, ":\n",
                           absl::StrJoin(differ, "\n"),
                           "\nAll must run the same program on the same "
                           "experiment and data.");
  }
  store_->set(key + "verdict", verdict);
  return verdict.empty() ? absl::OkStatus()
                         : absl::FailedPreconditionError(verdict);
}

absl::Status RankSession::MakeGroup(at::Device device) {
  ActivityScope scope(&activity_, "making the process group",
                      ActivityScope::Waits::kForAllRanks);
  // c10d's own timeout is a second line: the watchdog says more.
  const milliseconds timeout = options_.timeout + milliseconds(60000);
  const absl::StatusOr<std::string> address =
      OwnAddress(launch_.host, launch_.port);
  if (!address.ok()) return address.status();
  absl::Status status = CheckAddress(*address);
  if (!status.ok()) return status;
  group_ = std::make_unique<Communicator>(MakeWatchedGroup(
      c10::make_intrusive<c10d::PrefixStore>("group", store_), launch_.rank,
      launch_.size, address->c_str(), device, timeout, &activity_));
  return absl::OkStatus();
}

// Debian gives a machine's own name the address 127.0.1.1, which is right only
// as long as all ranks are there.
absl::Status RankSession::CheckAddress(const std::string& address) {
  const std::string host = HostName();
  store_->set(absl::StrCat("host/", launch_.rank), host);
  if (!absl::StartsWith(address, "127.")) return absl::OkStatus();
  for (int64_t r = 0; r < launch_.size; ++r) {
    const std::string other = store_->get_to_str(absl::StrCat("host/", r));
    if (other == host) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        launch_.host, " is ", address, " on ", host, ", where rank ",
        launch_.rank, " runs; rank ", r, " on ", other,
        " cannot reach that. Set MASTER_ADDR to an address that all machines "
        "reach, or GLOO_SOCKET_IFNAME to the network interface"));
  }
  return absl::OkStatus();
}

// The thread that trains mostly notices by itself, as its collective fails. One
// that hangs, or is busy elsewhere, is not waited for long.
void RankSession::OnLost(const std::string& what) {
  constexpr int kPolls = 100;  // 5 s.
  for (int i = 0; i < kPolls && !ending_; ++i) {
    const ActivitySnapshot now = activity_.Snapshot();
    if (now.waits && now.seconds > 2) break;
    std::this_thread::sleep_for(kPoll);
  }
  if (ending_.exchange(true)) return;
  LetOthersHear();
  options_.on_lost(what);
}

void RankSession::LetOthersHear() {
  if (serves_store_) std::this_thread::sleep_for(3 * WatchdogOptions().beat);
}

std::string RankSession::Explain(const std::string& error, bool thrown,
                                 const std::function<bool()>& give_up) {
  if (ending_.exchange(true)) {
    while (true) std::this_thread::sleep_for(kPoll);  // OnLost ends it all.
  }
  const std::string wait = activity_.failed_wait();
  if (thrown && !wait.empty() && IsOfACollective(error)) {
    // Longer than it takes to count a rank as dead.
    constexpr milliseconds kLongest(25000);
    const std::optional<std::string> loss =
        watchdog_->WaitForLoss(kLongest, give_up);
    if (loss.has_value()) {
      // Of two, the other one is what was lost.
      if (launch_.size > 2) LetOthersHear();
      return absl::StrCat(*loss, "\n(here it ended \"", wait,
                          "\": ", Indented(error), ")");
    }
  }
  const std::string mine = absl::StrCat(
      "rank ", launch_.rank, " failed",
      wait.empty() ? "" : absl::StrCat(" in \"", wait, "\""), ": ", error);
  const std::string told = watchdog_->TellFailure(mine);
  LetOthersHear();
  if (told == mine) return error;
  if (absl::StrContains(told, error)) return launch_.rank == 0 ? error : "";
  return absl::StrCat(error, "\n(before it, ", told, ")");
}

void RankSession::Finish() {
  constexpr milliseconds kLongest(60000);
  watchdog_->Leave();
  if (serves_store_) watchdog_->WaitUntilAllLeft(kLongest);
}

}  // namespace semvq
