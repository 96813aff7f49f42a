// The network address that this machine is reached by.
#ifndef SEMVQ_CORE_DISTRIBUTED_ADDRESS_H_
#define SEMVQ_CORE_DISTRIBUTED_ADDRESS_H_

#include <string>

#include "absl/status/statusor.h"

namespace semvq {

// In numbers: that of the interface through which this machine reaches `host`,
// or of the one that the environment variable GLOO_SOCKET_IFNAME names.
// InvalidArgument when there is no such interface, Unavailable without a way.
absl::StatusOr<std::string> OwnAddress(const std::string& host, int port);

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_ADDRESS_H_
