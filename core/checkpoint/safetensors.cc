#include "core/checkpoint/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <simdjson.h>

#include <algorithm>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "core/util/hash.h"

namespace semvq {
namespace {

constexpr int64_t kLengthBytes = 8;

struct Dtype {
  at::ScalarType type;
  const char* name;
};
constexpr Dtype kDtypes[] = {{at::kDouble, "F64"}, {at::kFloat, "F32"},
                             {at::kHalf, "F16"},   {at::kBFloat16, "BF16"},
                             {at::kLong, "I64"},   {at::kInt, "I32"},
                             {at::kShort, "I16"},  {at::kChar, "I8"},
                             {at::kByte, "U8"},    {at::kBool, "BOOL"}};

const char* DtypeName(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  return nullptr;
}

at::ScalarType DtypeOf(absl::string_view name) {
  for (const Dtype& dtype : kDtypes) {
    if (name == dtype.name) return dtype.type;
  }
  return at::ScalarType::Undefined;
}

bool IsUtf8(const std::string& text) {
  return simdjson::validate_utf8(text.data(), text.size());
}

absl::Status CheckWritable(const std::string& path, const std::string& name,
                           const at::Tensor& tensor) {
  std::string problem;
  if (!IsUtf8(name)) {
    problem = "its name is not UTF-8";
  } else if (name == "__metadata__") {
    problem = "the name is reserved";
  } else if (!tensor.defined()) {
    problem = "is not defined";
  } else if (DtypeName(tensor.scalar_type()) == nullptr) {
    problem = absl::StrCat("dtype ", c10::toString(tensor.scalar_type()),
                           " cannot be stored");
  } else if (tensor.layout() != at::kStrided || tensor.is_meta()) {
    problem = "expected a dense tensor with data";
  } else {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": tensor \"", name, "\": ", problem));
}

// What a header cannot tell: a BOOL byte is 0 or 1.
absl::Status CheckValues(const std::string& path, const SafetensorsEntry& entry,
                         const at::Tensor& tensor) {
  if (entry.dtype != "BOOL") return absl::OkStatus();
  const auto* bytes = static_cast<const uint8_t*>(tensor.data_ptr());
  if (std::all_of(bytes, bytes + tensor.numel(),
                  [](uint8_t b) { return b <= 1; })) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat(path, ": tensor \"", entry.name,
                   "\": a BOOL byte is neither 0 nor 1; the file is damaged"));
}

}  // namespace

absl::Status WriteSafetensors(
    const std::string& path, const NamedTensors& tensors,
    const std::map<std::string, std::string>& metadata, FileDigest* digest) {
  absl::flat_hash_set<std::string> names;
  std::vector<const std::pair<std::string, at::Tensor>*> order;
  for (const auto& named : tensors) {
    if (absl::Status s = CheckWritable(path, named.first, named.second);
        !s.ok()) {
      return s;
    }
    if (!names.insert(named.first).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor \"", named.first, "\": the name is given twice"));
    }
    order.push_back(&named);
  }
  for (const auto& [key, value] : metadata) {
    if (!IsUtf8(key) || !IsUtf8(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": metadata \"", key, "\" is not UTF-8"));
    }
  }
  // Large elements first: then each tensor is aligned without padding.
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const auto size_a = a->second.element_size();
    const auto size_b = b->second.element_size();
    return size_a != size_b ? size_a > size_b : a->first < b->first;
  });

  SafetensorsHeader header;
  header.metadata = metadata;
  int64_t at = 0;
  for (const auto* named : order) {
    SafetensorsEntry entry;
    entry.name = named->first;
    entry.dtype = DtypeName(named->second.scalar_type());
    entry.shape = named->second.sizes().vec();
    entry.begin = at;
    at += named->second.numel() * named->second.element_size();
    entry.end = at;
    header.entries.push_back(std::move(entry));
  }
  const std::string json = FormatSafetensorsHeader(header);
  if (static_cast<int64_t>(json.size()) > kMaxSafetensorsHeader) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the header would take ", json.size(),
                     " bytes, at most ", kMaxSafetensorsHeader,
                     " are allowed; split the tensors over several files"));
  }

  auto file = FileWriter::Create(path);
  if (!file.ok()) return file.status();
  std::optional<Sha256> hash;
  if (digest != nullptr) hash.emplace();
  auto write = [&](const void* data, size_t size) {
    if (hash.has_value()) hash->Update(data, size);
    return (*file)->Write(data, size);
  };
  char length[kLengthBytes];
  for (int i = 0; i < kLengthBytes; ++i) {
    length[i] = static_cast<char>(json.size() >> (8 * i));
  }
  if (absl::Status s = write(length, kLengthBytes); !s.ok()) return s;
  if (absl::Status s = write(json.data(), json.size()); !s.ok()) return s;
  for (const auto* named : order) {
    const at::Tensor data = named->second.detach().to(at::kCPU).contiguous();
    if (absl::Status s =
            write(data.data_ptr(), data.numel() * data.element_size());
        !s.ok()) {
      return s;
    }
  }
  if (absl::Status s = (*file)->Sync(); !s.ok()) return s;
  if (absl::Status s = (*file)->Close(); !s.ok()) return s;
  if (digest != nullptr) {
    digest->size_bytes = kLengthBytes + json.size() + at;
    digest->sha256 = hash->FinishHex();
  }
  return absl::OkStatus();
}

SafetensorsFile::SafetensorsFile(std::unique_ptr<FileReader> file,
                                 int64_t data_begin, SafetensorsHeader header)
    : file_(std::move(file)),
      data_begin_(data_begin),
      header_(std::move(header)) {
  names_.reserve(header_.entries.size());
  for (size_t i = 0; i < header_.entries.size(); ++i) {
    names_.push_back(header_.entries[i].name);
    index_.emplace(header_.entries[i].name, i);
  }
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  auto file = FileReader::Open(path);
  if (!file.ok()) return file.status();
  const int64_t size = (*file)->size();
  if (size < kLengthBytes + 2) {
    return absl::DataLossError(absl::StrCat(
        path, ": has ", size,
        " bytes, too few for a safetensors file; it is truncated"));
  }
  char raw[kLengthBytes];
  if (absl::Status s = (*file)->ReadAt(0, raw, kLengthBytes); !s.ok()) {
    return s;
  }
  uint64_t length = 0;  // little-endian
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    length = length << 8 | static_cast<unsigned char>(raw[i]);
  }
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeader)) {
    return absl::DataLossError(absl::StrCat(
        path, ": claims a header of ", length, " bytes, more than the ",
        kMaxSafetensorsHeader, " allowed; this is no safetensors file"));
  }
  if (length > static_cast<uint64_t>(size - kLengthBytes)) {
    return absl::DataLossError(absl::StrCat(
        path, ": claims a header of ", length, " bytes, but has only ",
        size - kLengthBytes, " more; it is truncated"));
  }
  std::string json(length, '\0');
  if (absl::Status s = (*file)->ReadAt(kLengthBytes, &json[0], length);
      !s.ok()) {
    return s;
  }
  const int64_t data_begin = kLengthBytes + length;
  auto header = ParseSafetensorsHeader(json, size - data_begin, path);
  if (!header.ok()) return header.status();
  return std::unique_ptr<SafetensorsFile>(
      new SafetensorsFile(*std::move(file), data_begin, *std::move(header)));
}

bool SafetensorsFile::contains(absl::string_view name) const {
  return entry(name) != nullptr;
}

const SafetensorsEntry* SafetensorsFile::entry(absl::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &header_.entries[found->second];
}

absl::StatusOr<const SafetensorsEntry*> SafetensorsFile::Find(
    absl::string_view name) const {
  const SafetensorsEntry* found = entry(name);
  if (found != nullptr) return found;
  return absl::NotFoundError(absl::StrCat(
      path(), ": no tensor \"", name, "\" among ", names_.size(),
      names_.empty() ? "" : ", such as \"",
      names_.empty() ? "" : names_.front(), names_.empty() ? "" : "\""));
}

absl::StatusOr<at::Tensor> SafetensorsFile::Get(absl::string_view name) const {
  auto found = Find(name);
  if (!found.ok()) return found.status();
  const SafetensorsEntry& entry = **found;
  at::Tensor tensor =
      at::empty(entry.shape, at::TensorOptions().dtype(DtypeOf(entry.dtype)));
  if (absl::Status s =
          file_->ReadAt(data_begin_ + entry.begin, tensor.data_ptr(),
                        entry.end - entry.begin);
      !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckValues(path(), entry, tensor); !s.ok()) return s;
  return tensor;
}

absl::StatusOr<at::Tensor> SafetensorsFile::View(absl::string_view name) const {
  auto found = Find(name);
  if (!found.ok()) return found.status();
  const SafetensorsEntry& entry = **found;
  const int64_t begin = data_begin_ + entry.begin;
  if (begin % SafetensorsItemSize(entry.dtype) != 0) return Get(name);
  auto map = file_->Map();
  if (!map.ok()) return map.status();
  char* const data = map->get() + begin;
  const at::Tensor tensor = at::from_blob(
      data, entry.shape, [map = *std::move(map)](void*) {},
      at::TensorOptions().dtype(DtypeOf(entry.dtype)));
  if (absl::Status s = CheckValues(path(), entry, tensor); !s.ok()) return s;
  return tensor;
}

}  // namespace semvq
