#ifndef SEMVQ_TRAINER_VERSION_H_
#define SEMVQ_TRAINER_VERSION_H_

namespace semvq {

// Written into checkpoints.
inline constexpr char kVersion[] = "0.1.0";

}  // namespace semvq

#endif  // SEMVQ_TRAINER_VERSION_H_
