/* Converting a model file to a smaller type: `galley quantize`. Public: the server's command line calls it. */
#ifndef GALLEY_QUANTIZE_H
#define GALLEY_QUANTIZE_H

#include "err.h"

/* Writes the GGUF file at in_path again as out_path with its matrices in TYPE: F32, F16, BF16, Q8_0, Q4_0, Q4_K,
 * Q5_K, Q6_K, or a mix, Q4_K_M or Q5_K_M (more bits for the output matrix, and for attn_v and ffn_down of some
 * layers). Vectors, norms and expert routers become F32. Rows that are not whole blocks fall back to Q8_0 or F16.
 * Metadata is copied. A tensor is never blown up from a smaller quantised type to a larger quantised one.
 * The output appears under its name only when it is complete; memory is bounded by one tensor's rows.
 *
 * ERR_INVALID: unknown type name. ERR_FORMAT: malformed input, a tensor type Galley cannot read, values that are not
 * finite (the tensor is named). ERR_IO, ERR_NOTFOUND, ERR_NOMEM. */
int model_quantize(const char *in_path, const char *out_path, const char *type_name, struct err *e);

/* The type names, for usage messages: "F32, F16, ...". */
const char *model_quantize_types(void);

#endif
