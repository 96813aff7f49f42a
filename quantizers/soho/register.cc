#include "quantizers/soho/soho.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, SohoConfig, MakeSoho, ValidateSoho, SohoContract);

}  // namespace semvq
