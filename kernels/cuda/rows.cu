#include "rows.h"

#include "quad.cuh"

DEV float quad_squares(struct quad q)
{
    return (q.v[0] * q.v[0] + q.v[1] * q.v[1]) + (q.v[2] * q.v[2] + q.v[3] * q.v[3]);
}

DEV void quad_store_bf16(struct bf16 *p, struct quad q)
{
    *(struct vec8 *)p = {{dev_pack_bf16(q.v[0], q.v[1]), dev_pack_bf16(q.v[2], q.v[3])}};
}

/* ---- Embedding ---- */

template <class T> DEV struct quad table_quad(const T *table, int64_t at)
{
    struct quad q;
    UNROLL
    for (int k = 0; k < 4; k++)
        q.v[k] = dev_to_f32(table[at + k]);
    return q;
}

/* Row `src` of the embedding table or the bank; zeros where another rank has it. */
template <class T> DEV struct quad source_quad(const struct embed_args *a, int32_t src, bool from_bank, int i)
{
    if (from_bank)
        return a->bank ? quad_load(a->bank + (int64_t)src * a->n_embd + i) : quad{};
    int32_t own = src - a->vocab0;
    return own >= 0 && own < a->n_vocab ? table_quad((const T *)a->table, (int64_t)own * a->n_embd + i) : quad{};
}

template <class T> KERNEL __launch_bounds__(512) k_embed(struct embed_args a)
{
    int32_t row = blockIdx.x, tok = a.tok[row];
    struct mix_part whole = {tok, 1};
    const struct mix_part *part = &whole;
    int32_t n_part = 1;
    bool from_bank = false;
    if (tok < 0) {
        struct mix mix = a.mix[ROW_MIX(tok)];
        part = a.part + mix.part0;
        n_part = mix.n_part;
        from_bank = mix.from_bank;
    }
    for (int i = threadIdx.x * 4; i < a.n_embd; i += blockDim.x * 4) {
        struct quad sum = {};
        for (int32_t j = 0; j < n_part; j++) {
            struct quad q = source_quad<T>(&a, part[j].src, from_bank, i);
            UNROLL
            for (int k = 0; k < 4; k++)
                sum.v[k] += part[j].weight * q.v[k];
        }
        UNROLL
        for (int k = 0; k < 4; k++)
            sum.v[k] *= from_bank ? 1 : a.scale;
        *(struct quad *)(a.x + (int64_t)row * a.n_embd + i) = sum;
    }
}

/* ---- Norms ---- */

struct norm_smem {
    float scratch[DEV_WARP];
};

/* What a row is multiplied with: 1 / its root mean square. Each thread sees what it wrote to x itself. */
DEV float norm_scale(const float *x, int32_t n, float eps, float *scratch)
{
    float sum = 0;
    for (int i = threadIdx.x * 4; i < n; i += blockDim.x * 4)
        sum += quad_squares(quad_load(x + i));
    return dev_rsqrt(dev_block_sum(sum, scratch) / n + eps);
}

DEV struct quad norm_quad(const float *x, const float *weight, float scale, int i)
{
    struct quad q = quad_load(x + i), w = quad_load(weight + i);
    UNROLL
    for (int k = 0; k < 4; k++)
        q.v[k] = q.v[k] * scale * w.v[k];
    return q;
}

DEV void add_delta(float *x, const float *delta, int32_t n)
{
    for (int i = threadIdx.x * 4; i < n; i += blockDim.x * 4) {
        struct quad q = quad_load(x + i), d = quad_load(delta + i);
        UNROLL
        for (int k = 0; k < 4; k++)
            q.v[k] += d.v[k];
        *(struct quad *)(x + i) = q;
    }
}

KERNEL __launch_bounds__(512) k_norm(struct norm_args a)
{
    SMEM_DYN(norm_smem, s);
    int32_t row = blockIdx.x;
    float *x = a.x + (int64_t)(a.row ? a.row[row] : row) * a.n;
    if (a.delta)
        add_delta(x, a.delta + (int64_t)row * a.n, a.n);
    float scale = a.weight ? norm_scale(x, a.n, a.eps, s->scratch) : 1;
    for (int i = threadIdx.x * 4; i < a.n; i += blockDim.x * 4) {
        struct quad q = a.weight ? norm_quad(x, a.weight, scale, i) : quad_load(x + i);
        if (a.out) {
            quad_store_bf16(a.out + (int64_t)row * a.n + i, q);
            continue;
        }
        for (int k = 0; k < 4; k++) /* results lie at any offset */
            a.out_f32[a.out_at[row] + i + k] = q.v[k];
    }
}

KERNEL __launch_bounds__(512) k_add(struct add_args a)
{
    SMEM_DYN(norm_smem, s);
    float *x = a.x + (int64_t)blockIdx.x * a.n;
    const float *y = a.y + (int64_t)blockIdx.x * a.n;
    float scale = a.weight ? norm_scale(y, a.n, a.eps, s->scratch) : 1;
    for (int i = threadIdx.x * 4; i < a.n; i += blockDim.x * 4) {
        struct quad q = quad_load(x + i), add = a.weight ? norm_quad(y, a.weight, scale, i) : quad_load(y + i);
        UNROLL
        for (int k = 0; k < 4; k++)
            q.v[k] += add.v[k] * a.scale;
        *(struct quad *)(x + i) = q;
    }
}

KERNEL __launch_bounds__(512) k_plane(struct plane_args a)
{
    SMEM_DYN(norm_smem, s);
    int32_t row = blockIdx.x;
    if (a.slot[row] < 0)
        return;
    const float *x = a.x + (int64_t)row * a.n;
    struct f16 *out = a.plane + (int64_t)a.slot[row] * a.n;
    float scale = norm_scale(x, a.n, a.eps, s->scratch), sum = 0;
    for (int i = threadIdx.x * 4; i < a.n; i += blockDim.x * 4)
        sum += quad_squares(norm_quad(x, a.weight, scale, i));
    float unit = dev_rsqrt(dev_block_sum(sum, s->scratch));
    for (int i = threadIdx.x * 4; i < a.n; i += blockDim.x * 4) {
        struct quad q = norm_quad(x, a.weight, scale, i);
        for (int k = 0; k < 4; k++)
            out[i + k] = dev_to_f16(q.v[k] * unit);
    }
}

/* ---- The rest ---- */

KERNEL __launch_bounds__(512) k_glu(struct glu_args a)
{
    int32_t row = blockIdx.x;
    const float *gate = a.gate + (int64_t)row * a.stride, *up = a.up + (int64_t)row * a.stride;
    for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * 4; i < a.n; i += gridDim.y * blockDim.x * 4) {
        struct quad g = quad_load(gate + i), u = quad_load(up + i);
        UNROLL
        for (int k = 0; k < 4; k++)
            g.v[k] = dev_gate(g.v[k], a.gelu) * u.v[k];
        quad_store_bf16(a.out + (int64_t)row * a.out_stride + i, g);
    }
}

KERNEL __launch_bounds__(512)
    k_save(const float *x, float *bank, const int32_t *from, const int32_t *to, int32_t n_embd)
{
    const float *src = x + (int64_t)from[blockIdx.x] * n_embd;
    float *dst = bank + (int64_t)to[blockIdx.x] * n_embd;
    for (int i = threadIdx.x * 4; i < n_embd; i += blockDim.x * 4)
        *(struct quad *)(dst + i) = quad_load(src + i);
}

KERNEL __launch_bounds__(256) k_cap(float *x, int64_t n, float scale, float cap)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        float v = x[i] * scale;
        x[i] = cap > 0 ? dev_soft_cap(v, cap) : v;
    }
}

KERNEL __launch_bounds__(512) k_sum(float *x, const float *part, int32_t n_part, int64_t n)
{
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < n;
         i += (int64_t)gridDim.x * blockDim.x * 4) {
        struct quad sum = quad_load(part + i);
        for (int32_t p = 1; p < n_part; p++) {
            struct quad q = quad_load(part + p * n + i);
            UNROLL
            for (int k = 0; k < 4; k++)
                sum.v[k] += q.v[k];
        }
        *(struct quad *)(x + i) = sum;
    }
}

/* ---- Launches ---- */

int32_t rows_block_threads(int32_t n)
{
    int32_t threads = (n / 4 + DEV_WARP - 1) / DEV_WARP * DEV_WARP;
    return threads < DEV_WARP ? DEV_WARP : threads > 512 ? 512 : threads;
}

void rows_embed(const struct embed_args *a, struct CUstream_st *stream)
{
    int32_t threads = rows_block_threads(a->n_embd);
    if (a->type == DT_F32)
        LAUNCH(k_embed<float>, a->n_row, threads, 0, stream, *a);
    else if (a->type == DT_F16)
        LAUNCH(k_embed<struct f16>, a->n_row, threads, 0, stream, *a);
    else
        LAUNCH(k_embed<struct bf16>, a->n_row, threads, 0, stream, *a);
}

void rows_norm(const struct norm_args *a, struct CUstream_st *stream)
{
    LAUNCH(k_norm, a->n_row, rows_block_threads(a->n), sizeof(struct norm_smem), stream, *a);
}

void rows_add(const struct add_args *a, struct CUstream_st *stream)
{
    LAUNCH(k_add, a->n_row, rows_block_threads(a->n), sizeof(struct norm_smem), stream, *a);
}

void rows_plane(const struct plane_args *a, struct CUstream_st *stream)
{
    LAUNCH(k_plane, a->n_row, rows_block_threads(a->n), sizeof(struct norm_smem), stream, *a);
}

void rows_glu(const struct glu_args *a, struct CUstream_st *stream)
{
    int32_t threads = rows_block_threads(a->n), per_block = threads * 4;
    LAUNCH(k_glu, dim3(a->n_row, (a->n + per_block - 1) / per_block), threads, 0, stream, *a);
}

void rows_save(const float *x, float *bank, const int32_t *from, const int32_t *to, int32_t n_row, int32_t n_embd,
               struct CUstream_st *stream)
{
    LAUNCH(k_save, n_row, rows_block_threads(n_embd), 0, stream, x, bank, from, to, n_embd);
}

enum { FLAT_THREADS = 256, FLAT_BLOCKS = 1024 };

/* Blocks for n pieces of work that any of them may take. */
static unsigned flat_blocks(int64_t n)
{
    int64_t n_block = (n + FLAT_THREADS - 1) / FLAT_THREADS;
    return (unsigned)(n_block < FLAT_BLOCKS ? n_block : (int64_t)FLAT_BLOCKS);
}

void rows_sum(float *x, const float *part, int32_t n_part, int64_t n, struct CUstream_st *stream)
{
    LAUNCH(k_sum, flat_blocks(n / 4), FLAT_THREADS, 0, stream, x, part, n_part, n);
}

void rows_cap(float *x, int64_t n, float scale, float cap, struct CUstream_st *stream)
{
    LAUNCH(k_cap, flat_blocks(n), FLAT_THREADS, 0, stream, x, n, scale, cap);
}
