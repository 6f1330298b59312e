/* Weights for the tests of products: random rows of a file's type, packed, and read back by what gemm.h says. */
#ifndef GALLEY_SIMT_GEMM_CASE_H
#define GALLEY_SIMT_GEMM_CASE_H

#include "gemm.h"

struct gemm_source { /* owner: the test */
    int type;        /* of the rows */
    struct gemm_weight weight;
    uint8_t *rows; /* [n_matrix][n_out][dtype_row_bytes] */
};

/* The dtype whose rows a format is tested with. */
int gemm_case_type(enum gemm_format format);
void gemm_case_open(struct gemm_source *s, enum gemm_format format, int32_t n_matrix, int32_t n_out, int32_t n_in,
                    uint64_t seed);
void gemm_case_close(struct gemm_source *s);
const uint8_t *gemm_case_row(const struct gemm_source *s, int32_t matrix, int32_t row);
/* A row as the packed form has it. */
void gemm_case_unpack(const struct gemm_weight *w, int32_t matrix, int32_t row, float *out);

#endif
