#include "core/distributed/testing.h"

#include <arpa/inet.h>
#include <c10/util/Exception.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <vector>

namespace semvq {
namespace {

// c10d's flight recorder is one of the process, and notes a group's first
// collective in a map without its lock (LibTorch 2.11): ranks that are threads
// would crash in it now and then. Size 0 turns it off.
[[maybe_unused]] const int recorder_off =
    setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);

}  // namespace

void RunRanks(int64_t size, const std::function<void(Communicator&)>& run) {
  constexpr std::chrono::seconds kTimeout(60);
  const auto store = c10::make_intrusive<c10d::HashStore>();
  store->setTimeout(kTimeout);
  std::vector<std::exception_ptr> errors(size);
  // All live until all are through: a rank that left early would close the
  // connections of those that are still at work.
  std::vector<std::unique_ptr<Communicator>> groups(size);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        groups[rank] = std::make_unique<Communicator>(
            MakeGlooGroup(store, rank, size, "127.0.0.1", kTimeout));
        run(*groups[rank]);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error != nullptr) std::rethrow_exception(error);
  }
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  TORCH_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0,
              "no free port of the loopback device");
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

}  // namespace semvq
