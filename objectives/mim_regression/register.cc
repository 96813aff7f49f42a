#include "core/plugin/registry.h"
#include "objectives/mim_regression/config.pb.h"
#include "objectives/mim_regression/mim_regression.h"

namespace semvq {

SEMVQ_REGISTER(Objective, MimRegressionConfig, MakeMimRegression,
               ValidateMimRegression, MimRegressionContract);

}  // namespace semvq
