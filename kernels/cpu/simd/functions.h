/* The functions that an instruction set's table points to; see isa.h. Private to kernels/cpu/simd. */
#ifndef GALLEY_CPU_FUNCTIONS_H
#define GALLEY_CPU_FUNCTIONS_H

#include "isa.h"
#include "vec.h"

void CPU_FN(product_f32)(const struct panel_job *j);
void CPU_FN(product_f16)(const struct panel_job *j);
void CPU_FN(product_bf16)(const struct panel_job *j);
void CPU_FN(product_fp8)(const struct panel_job *j);
void CPU_FN(product_q8_0)(const struct panel_job *j);
void CPU_FN(product_q4_0)(const struct panel_job *j);
void CPU_FN(product_q4_k)(const struct panel_job *j);
void CPU_FN(product_q5_k)(const struct panel_job *j);
void CPU_FN(product_q6_k)(const struct panel_job *j);
void CPU_FN(product_mxfp4)(const struct panel_job *j);
void CPU_FN(lines_f32)(const float *x, int32_t n, union act_line *line, size_t stride);
void CPU_FN(lines_int)(const float *x, int32_t n, union act_line *line, size_t stride);
/* With AMX alone: */
void CPU_FN(product_bf16_tiles)(const struct panel_job *j);
void CPU_FN(lines_bf16)(const float *x, int32_t n, union act_line *line, size_t stride);
void CPU_FN(rms_norm)(const float *x, const float *weight, float *out, int32_t n, float eps);
void CPU_FN(silu_mul)(float *gate, const float *up, int32_t n);
void CPU_FN(gelu_mul)(float *gate, const float *up, int32_t n);
void CPU_FN(soft_cap)(float *x, int32_t n, float scale, float cap);
float CPU_FN(dot)(const float *a, const float *b, int32_t n);
float CPU_FN(dot_f16)(const uint16_t *a, const uint16_t *b, int32_t n);
void CPU_FN(kv_store)(int32_t type, const float *x, void *dst, int32_t n);
void CPU_FN(attend)(const struct attend_job *j, int32_t first, int32_t end, float *partial);
void CPU_FN(attend_finish)(const struct attend_job *j, float *partial, size_t stride, int32_t first, int32_t n);

#endif
