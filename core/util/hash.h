#ifndef SEMVQ_CORE_UTIL_HASH_H_
#define SEMVQ_CORE_UTIL_HASH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// SHA-256 (FIPS 180-4) of data that comes in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size);
  void Update(absl::string_view data) { Update(data.data(), data.size()); }

  // 64 lower-case hexadecimal digits. Ends the hash; call once, last.
  std::string FinishHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(absl::string_view data);

// Of a whole file, read in blocks.
absl::StatusOr<std::string> Sha256File(const std::string& path);

// CRC-32C (Castagnoli, RFC 3720): "123456789" gives 0xE3069283.
uint32_t Crc32c(absl::string_view data);

}  // namespace semvq

#endif  // SEMVQ_CORE_UTIL_HASH_H_
