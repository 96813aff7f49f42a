#include "quantizers/product/product.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, ProductConfig, MakeProduct, ValidateProduct,
               ProductContract);

}  // namespace semvq
