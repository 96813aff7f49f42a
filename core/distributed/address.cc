#include "core/distributed/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

// An IPv4 or IPv6 address in numbers; empty: of another kind.
std::string Numeric(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr,
              text, sizeof(text));
  } else if (address->sa_family == AF_INET6) {
    inet_ntop(AF_INET6,
              &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text,
              sizeof(text));
  }
  return text;
}

std::string AddressOfInterface(const std::string& name) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return "";
  std::string found;
  for (const ifaddrs* one = all; one != nullptr && found.empty();
       one = one->ifa_next) {
    if (one->ifa_addr != nullptr && name == one->ifa_name) {
      found = Numeric(one->ifa_addr);
    }
  }
  freeifaddrs(all);
  return found;
}

}  // namespace

absl::StatusOr<std::string> OwnAddress(const std::string& host, int port) {
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface != nullptr && *interface != '\0') {
    std::string address = AddressOfInterface(interface);
    if (!address.empty()) return address;
    return absl::InvalidArgumentError(absl::StrCat(
        "GLOO_SOCKET_IFNAME is \"", interface,
        "\", but this machine has no such network interface with an address"));
  }
  addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  std::string address;
  if (getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) ==
      0) {
    for (const addrinfo* one = found; one != nullptr && address.empty();
         one = one->ai_next) {
      // Nothing is sent: connect() only finds the route.
      const int fd = socket(one->ai_family, SOCK_DGRAM, 0);
      sockaddr_storage own = {};
      socklen_t size = sizeof(own);
      if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen) == 0 &&
          getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0) {
        address = Numeric(reinterpret_cast<const sockaddr*>(&own));
      }
      if (fd >= 0) close(fd);
    }
    freeaddrinfo(found);
  }
  if (!address.empty()) return address;
  return absl::UnavailableError(
      absl::StrCat("no network interface of this machine reaches ", host));
}

}  // namespace semvq
