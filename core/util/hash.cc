#include "core/util/hash.h"

#include <isa-l/crc.h>
#include <openssl/evp.h>

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "core/util/file.h"

namespace semvq {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr);
}

Sha256::~Sha256() = default;

void Sha256::Update(const void* data, size_t size) {
  EVP_DigestUpdate(context_->evp, data, size);
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context_->evp, digest, &size);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), size));
}

std::string Sha256Hex(absl::string_view data) {
  Sha256 hash;
  hash.Update(data);
  return hash.FinishHex();
}

absl::StatusOr<std::string> Sha256File(const std::string& path) {
  auto file = FileReader::Open(path);
  if (!file.ok()) return file.status();
  constexpr int64_t kBlock = int64_t{1} << 20;
  std::vector<char> block(kBlock);
  Sha256 hash;
  for (int64_t at = 0; at < (*file)->size(); at += kBlock) {
    const int64_t size = std::min(kBlock, (*file)->size() - at);
    if (absl::Status s = (*file)->ReadAt(at, block.data(), size); !s.ok()) {
      return s;
    }
    hash.Update(block.data(), size);
  }
  return hash.FinishHex();
}

uint32_t Crc32c(absl::string_view data) {
  constexpr size_t kBlock = size_t{1} << 30;  // ISA-L's length is an int
  uint32_t crc = 0xffffffffu;
  for (; !data.empty(); data.remove_prefix(std::min(kBlock, data.size()))) {
    // ISA-L only reads the buffer, although its signature is not const.
    auto* bytes = reinterpret_cast<unsigned char*>(
        const_cast<char*>(data.data()));  // NOLINT
    crc = crc32_iscsi(bytes, static_cast<int>(std::min(kBlock, data.size())),
                      crc);
  }
  return crc ^ 0xffffffffu;
}

}  // namespace semvq
