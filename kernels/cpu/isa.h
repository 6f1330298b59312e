/* What the rest of the back end asks of an instruction set: one table of functions for each, compiled from the same
 * sources in simd/ with other flags, chosen once by cpuid. Every table gives the same bits (see simd/vec.h), but for bf16
 * weights by AMX (see simd/product_amx.c). Private to kernels/cpu. */
#ifndef GALLEY_CPU_ISA_H
#define GALLEY_CPU_ISA_H

#include "backend.h"

enum {
    PANEL = 16,    /* weight rows, that is output columns, that a product computes together */
    MAX_TILE = 16, /* rows of activations that a product computes together, at most; see cpu_isa.tile */
    KEY_TILE = 32, /* keys that attention works on together */
    SEGMENT = 512, /* positions under one maximum; segments are cut at absolute positions */
    F_LINE = 16,   /* elements of an act_line: f32 */
    Q_LINE = 32,   /*                          int8 */
};

/* What a format's products take activations as. With BF16 two lines have 32 elements, one their upper parts and one the
 * lower (product_amx.c). */
enum act_kind { ACT_F32, ACT_BF16, ACT_INT, N_ACT };

/* 64 bytes of one row's activations: 16 f32, 32 bf16, or 32 int8 codes and what the weight formats need beside them.
 * The sums are of codes: a format whose codes are stored with an offset starts its integer sum there, which undoes the
 * offset exactly and costs nothing. */
union act_line {
    float f[F_LINE];
    struct {
        int8_t q[Q_LINE];
        float scale;                          /* x ~ scale * q */
        float neg_sum;                        /* -scale * (sum of q): multiplies the minima of Q4_K and Q5_K */
        int32_t off128, off8, off32a, off32b; /* -128 sum, -8 sum, -32 sum of the first and of the second 16 */
        int32_t off12;                        /* -12 sum */
    };
    char bytes[64];
};

/* How weights are repacked: see weight.h. */
enum pack {
    PACK_F32,
    PACK_F16,
    PACK_BF16,
    PACK_FP8,
    PACK_Q8_0,
    PACK_Q4_0,
    PACK_Q4_K,
    PACK_Q5_K,
    PACK_Q6_K,
    PACK_MXFP4,
    N_PACK,
    PACK_FIRST_INT = PACK_Q8_0,
};

/* y[r][0 .. 16 * n_panel) = the product of consecutive panels with rows r of one tile. */
struct panel_job {
    const uint8_t *w; /* the first panel */
    size_t panel_bytes;
    int32_t n_panel;
    const union act_line *a; /* [n_line][n_row] */
    int32_t n_line, n_row;   /* n_row at most cpu_isa.tile */
    float *y;
    size_t stride; /* floats from one row of y to the next */
};

typedef void (*panel_fn)(const struct panel_job *j);

struct attend_job;

struct cpu_isa {
    const char *name; /* "avx512-vnni" */
    int32_t tile;     /* rows that product takes at once */
    panel_fn product[N_PACK];
    /* A row of n floats to the lines of an activation tile; line i stands at line + i * stride. Tails are zero. Without
     * ACT_BF16, bf16 weights take ACT_F32. */
    void (*lines[N_ACT])(const float *x, int32_t n, union act_line *line, size_t stride);
    /* out = norm(x) * weight; may be in place. */
    void (*rms_norm)(const float *x, const float *weight, float *out, int32_t n, float eps);
    void (*silu_mul)(float *gate, const float *up, int32_t n);     /* gate = silu(gate) * up */
    void (*gelu_mul)(float *gate, const float *up, int32_t n);     /* the same with GELU's tanh form */
    void (*soft_cap)(float *x, int32_t n, float scale, float cap); /* x = cap * tanh(x * scale / cap) */
    float (*dot)(const float *a, const float *b, int32_t n);
    float (*dot_f16)(const uint16_t *a, const uint16_t *b, int32_t n);
    /* One head of K or V to and from the type it is stored in. */
    void (*kv_store)(int32_t type, const float *x, void *dst, int32_t n);
    /* What the rows see in segments first..end-1, which leaves q as it is: a partial result of attend_partial floats.
     */
    void (*attend)(const struct attend_job *j, int32_t first, int32_t end, float *partial);
    /* From n partial results, `stride` floats apart, to outputs that replace q. They cover runs of 2^x segments, cut at
     * multiples of 2^x, the first of them run number `first`. They are overwritten. */
    void (*attend_finish)(const struct attend_job *j, float *partial, size_t stride, int32_t first, int32_t n);
};

struct kv_pages { /* one layer and KV head: slot s of block b at data + b * block + s * row, but for lanes.h's groups */
    const char *data;
    size_t block, row;
    int32_t type, lanes, step;
};

/* A few rows of one span against the keys of one KV head. */
struct attend_job {
    const struct step_plan *plan;
    const struct span *span;
    int32_t row0, n_row; /* plan rows, at most attend_rows */
    int32_t n_q, dim;    /* query heads that share the KV head; head size */
    int32_t window;
    float scale, softcap; /* 0: no cap */
    float *q;             /* [plan row][q_stride]: this KV head's n_q query heads */
    size_t q_stride;
    struct kv_pages k, v;
    int32_t block_len;
    float *scratch; /* attend_scratch floats, 64-byte aligned */
};

enum { ATTEND_ROWS = 16, ATTEND_QUERIES = 64 };

/* Rows that are worth taking together: their queries' scores should stay in a cache. */
static inline int32_t attend_rows(int32_t n_q)
{
    int32_t n = ATTEND_QUERIES / n_q;
    return n > ATTEND_ROWS ? ATTEND_ROWS : n < 1 ? 1 : n;
}

/* Their queries, rounded up. */
static inline size_t attend_queries(int32_t n_q)
{
    return ((size_t)(attend_rows(n_q) * n_q) + 15) / 16 * 16;
}

/* Floats of a partial result: a maximum, a sum and a vector for each query. */
static inline size_t attend_partial(int32_t n_q, int32_t dim)
{
    return attend_queries(n_q) * (2 + ((size_t)dim + 15) / 16 * 16);
}

/* Floats of scratch that attend needs where no position is beyond segment `last`. */
static inline size_t attend_scratch(int32_t n_q, int32_t dim, int32_t last)
{
    size_t width = ((size_t)dim + 15) / 16 * 16, n_partial = 1;
    for (; last; last /= 2)
        n_partial++;
    return 2 * KEY_TILE * (width + width / 32) + attend_queries(n_q) * (width + SEGMENT + 16 + 1) +
           n_partial * attend_partial(n_q, dim);
}

extern const struct cpu_isa cpu_isa_portable;
#if defined(GALLEY_X86)
extern const struct cpu_isa cpu_isa_avx2, cpu_isa_avx512, cpu_isa_avx512vnni, cpu_isa_amx;
#endif

/* The best that this machine has, or the one that GALLEY_CPU_ISA names (portable, avx2, avx512,
 * avx512vnni, amx). */
int cpu_isa_choose(const struct cpu_isa **out, struct err *e);

#endif
