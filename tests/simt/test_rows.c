/* rows.cu and kv.cu against plain loops in double precision. */
#include <string.h>

#include "kv.h"
#include "rows.h"
#include "simt.h"
#include "values.h"
#include "../unit/suite.h"

static const int32_t widths[] = {4, 60, 64, 132, 896, 4096};
enum { N_WIDTH = sizeof widths / sizeof *widths, N_ROW = 5 };

START_TEST(test_block_threads)
{
    ck_assert_int_eq(rows_block_threads(4), 32);
    ck_assert_int_eq(rows_block_threads(128), 32);
    ck_assert_int_eq(rows_block_threads(132), 64);
    ck_assert_int_eq(rows_block_threads(4096), 512);
}
END_TEST

/* ---- Embedding ---- */

static float table_value(int type, const void *table, size_t i)
{
    return type == DT_F32   ? ((const float *)table)[i]
           : type == DT_F16 ? f16_to_f32(((const uint16_t *)table)[i])
                            : bf16_to_f32(((const uint16_t *)table)[i]);
}

static void check_embed(int type, int32_t n, int32_t vocab0, int32_t n_vocab, int with_bank)
{
    enum { V = 40, N_BANK = 3 };
    static const int32_t tok[N_ROW] = {3, MIX_ROW(0), 39, MIX_ROW(1), 20};
    static const struct mix mix[] = {{.part0 = 1, .n_part = 3}, {.part0 = 0, .n_part = 2, .from_bank = 1}};
    static const struct mix_part part[] = {{2, 0.5f}, {1, -1.5f}, {19, 0.25f}, {39, 2}};
    float *source = values_f32(1, (size_t)V * (size_t)n, 1), *bank = values_f32(2, (size_t)N_BANK * (size_t)n, 1);
    size_t element = type == DT_F32 ? 4 : 2;
    char *table = malloc((size_t)n_vocab * (size_t)n * element);
    dtype_from_f32(type, source + (size_t)vocab0 * (size_t)n, table, (int64_t)n_vocab * n);
    float *x = values_f32(3, (size_t)N_ROW * (size_t)n, 1);
    rows_embed(&(struct embed_args){.table = table,
                                    .type = type,
                                    .vocab0 = vocab0,
                                    .n_vocab = n_vocab,
                                    .scale = 3,
                                    .bank = with_bank ? bank : NULL,
                                    .tok = tok,
                                    .mix = mix,
                                    .part = part,
                                    .x = x,
                                    .n_row = N_ROW,
                                    .n_embd = n},
               NULL);
    for (int r = 0; r < N_ROW; r++)
        for (int32_t i = 0; i < n; i++) {
            double want = 0;
            struct mix m = tok[r] < 0 ? mix[ROW_MIX(tok[r])] : (struct mix){.n_part = 1};
            for (int32_t j = 0; j < m.n_part; j++) {
                struct mix_part q = tok[r] < 0 ? part[m.part0 + j] : (struct mix_part){tok[r], 1};
                if (m.from_bank)
                    want += with_bank ? (double)q.weight * bank[q.src * n + i] : 0;
                else if (q.src >= vocab0 && q.src < vocab0 + n_vocab)
                    want += 3 * (double)q.weight * table_value(type, table, (size_t)((q.src - vocab0) * n + i));
            }
            CK_CLOSE(x[r * n + i], want, 3e-6, "type %d, row %d, element %d of %d", type, r, i, n);
        }
    free(source), free(bank), free(table), free(x);
}

START_TEST(test_embed)
{
    static const int types[] = {DT_F32, DT_F16, DT_BF16};
    for (int t = 0; t < 3; t++)
        for (int w = 0; w < N_WIDTH; w++) {
            simt_seed((uint64_t)(t * 10 + w));
            check_embed(types[t], widths[w], 0, 40, 1);
            check_embed(types[t], widths[w], 20, 20, 0);
        }
}
END_TEST

/* ---- Norms ---- */

static double norm_scale(const float *x, int32_t n, double eps)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return 1 / sqrt(sum / n + eps);
}

static void check_norm(int32_t n, int with_delta)
{
    size_t size = (size_t)N_ROW * (size_t)n;
    float *x = values_f32(4, size, 3), *delta = values_f32(5, size, 1), *weight = values_f32(6, (size_t)n, 2);
    float *sum = malloc(size * sizeof *sum);
    uint16_t *out = malloc(size * sizeof *out);
    for (size_t i = 0; i < size; i++)
        sum[i] = x[i] + (with_delta ? delta[i] : 0);
    rows_norm(&(struct norm_args){.x = x,
                                  .delta = with_delta ? delta : NULL,
                                  .weight = weight,
                                  .eps = 1e-5f,
                                  .out = (struct bf16 *)out,
                                  .n_row = N_ROW,
                                  .n = n},
              NULL);
    for (int r = 0; r < N_ROW; r++) {
        double scale = norm_scale(sum + r * n, n, 1e-5);
        for (int32_t i = 0; i < n; i++) {
            double want = (double)sum[r * n + i] * scale * weight[i];
            CK_CLOSE(bf16_to_f32(out[r * n + i]), want, fabs(want) * 0x1.02p-8 + 1e-30, "row %d of %d", r, n);
            ck_assert(x[r * n + i] == sum[r * n + i]);
        }
    }
    free(x), free(delta), free(weight), free(sum), free(out);
}

START_TEST(test_norm)
{
    for (int w = 0; w < N_WIDTH; w++) {
        simt_seed((uint64_t)w);
        check_norm(widths[w], 0);
        check_norm(widths[w], 1);
    }
}
END_TEST

START_TEST(test_norm_of_some_rows)
{
    static const int32_t row[] = {4, 1, 1}, at[] = {500, 3, 200};
    float *x = values_f32(4, N_ROW * 132, 3), *weight = values_f32(6, 132, 2), out[700];
    rows_norm(
        &(struct norm_args){
            .x = x, .row = row, .weight = weight, .eps = 1e-5f, .out_f32 = out, .out_at = at, .n_row = 3, .n = 132},
        NULL);
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < 132; i++) {
            const float *from = x + row[r] * 132;
            double want = from[i] * norm_scale(from, 132, 1e-5) * weight[i];
            CK_CLOSE(out[at[r] + i], want, 1e-6 * (1 + fabs(want)), "row %d", r);
        }
    free(x), free(weight);
}
END_TEST

START_TEST(test_plane)
{
    enum { N = 132, N_SLOT = 20 };
    static const int32_t slot[N_ROW] = {7, 0, 19, 3, 8};
    float *x = values_f32(4, N_ROW * N, 3), *weight = values_f32(6, N, 2);
    uint16_t *plane = calloc(N_SLOT * N, sizeof *plane);
    rows_plane(
        &(struct plane_args){
            .x = x, .weight = weight, .eps = 1e-5f, .slot = slot, .plane = (struct f16 *)plane, .n_row = N_ROW, .n = N},
        NULL);
    for (int r = 0; r < N_ROW; r++) {
        double length = 0;
        for (int i = 0; i < N; i++)
            length += pow((double)x[r * N + i] * weight[i], 2);
        for (int i = 0; i < N; i++) {
            double want = (double)x[r * N + i] * weight[i] / sqrt(length);
            CK_CLOSE(f16_to_f32(plane[slot[r] * N + i]), want, fabs(want) * 0x1.1p-11 + 0x1p-25, "row %d", r);
        }
    }
    for (int i = 0; i < N; i++)
        ck_assert(!plane[1 * N + i]); /* nobody's */
    free(x), free(weight), free(plane);
}
END_TEST

START_TEST(test_glu)
{
    for (int w = 0; w < N_WIDTH; w++) {
        int32_t n = widths[w], stride = 2 * n;
        float *gate_up = values_f32(7, (size_t)N_ROW * (size_t)stride, 20);
        uint16_t *out = malloc((size_t)(N_ROW * (n + 4)) * sizeof *out);
        gate_up[0] = -INFINITY, gate_up[1] = 1000, gate_up[2] = -1000;
        rows_glu(&(struct glu_args){.gate = gate_up,
                                    .up = gate_up + n,
                                    .out = (struct bf16 *)out,
                                    .n_row = N_ROW,
                                    .n = n,
                                    .stride = stride,
                                    .out_stride = n + 4,
                                    .gelu = _i},
                 NULL);
        for (int r = 0; r < N_ROW; r++)
            for (int32_t i = r == 0; i < n; i++) {
                double g = gate_up[r * stride + i],
                       want = (_i ? gelu_of(g) : g / (1 + exp(-g))) * gate_up[r * stride + n + i];
                double far =
                    _i ? 1e-5 * fabs(g * gate_up[r * stride + n + i]) : 1e-30; /* where the tail of GELU ends */
                CK_CLOSE(bf16_to_f32(out[r * (n + 4) + i]), want, fabs(want) * 0x1.02p-8 + far, "row %d of %d", r, n);
            }
        free(gate_up), free(out);
    }
}
END_TEST

/* x += scale * y, and of y's norm. */
START_TEST(test_add)
{
    for (int w = 0; w < N_WIDTH; w++)
        for (int normed = 0; normed < 2; normed++) {
            int32_t n = widths[w];
            float *x = values_f32(21, (size_t)(N_ROW * n), 3), *y = values_f32(22, (size_t)(N_ROW * n), 5),
                  *weight = values_f32(23, (size_t)n, 2), *before = values_f32(21, (size_t)(N_ROW * n), 3);
            rows_add(&(struct add_args){.x = x,
                                        .y = y,
                                        .weight = normed ? weight : NULL,
                                        .eps = 1e-5f,
                                        .scale = .4f,
                                        .n_row = N_ROW,
                                        .n = n},
                     NULL);
            for (int r = 0; r < N_ROW; r++) {
                double sum = 0;
                for (int32_t i = 0; i < n; i++)
                    sum += (double)y[r * n + i] * y[r * n + i];
                double scale = 1 / sqrt(sum / n + 1e-5);
                for (int32_t i = 0; i < n; i++) {
                    double add = .4 * y[r * n + i] * (normed ? scale * weight[i] : 1);
                    CK_CLOSE(x[r * n + i], before[r * n + i] + add, fabs(add) * 1e-5 + 1e-5, "row %d of %d", r, n);
                }
            }
            free(x), free(y), free(weight), free(before);
        }
}
END_TEST

START_TEST(test_cap)
{
    enum { N = 1003 };
    static const float caps[] = {0, 2, 30};
    for (int c = 0; c < 3; c++) {
        float *x = values_f32(24, N, 200), *before = values_f32(24, N, 200);
        before[0] = x[0] = 1e30f, before[1] = x[1] = -1e30f, before[2] = x[2] = 1e-3f;
        rows_cap(x, N, .5f, caps[c], NULL);
        for (int i = 0; i < N; i++) {
            double v = .5 * before[i], want = caps[c] > 0 ? caps[c] * tanh(v / caps[c]) : v;
            CK_CLOSE(x[i], want, fabs(want) * 1e-6 + caps[c] * 1e-6, "%d with cap %g", i, (double)caps[c]);
        }
        free(x), free(before);
    }
}
END_TEST

/* n_k 0: another device counts those heads. */
START_TEST(test_squares)
{
    static const int32_t wide[][2] = {{60, 20}, {256, 0}, {1000, 256}, {4096, 4096}};
    for (int i = 0; i < 8; i++) {
        int32_t n_q = wide[i / 2][0], n_k = wide[i / 2][1], stride = n_q + n_k + 13;
        float *x = values_f32(25, (size_t)(N_ROW * stride), 3), *bias = values_f32(27, (size_t)(n_q + n_k), 1),
              *out = values_f32(28, N_ROW * KV_SQUARES, 1);
        simt_seed((uint64_t)i);
        kv_squares(&(struct squares_args){.q = x,
                                          .k = x + n_q,
                                          .bq = i % 2 ? bias : NULL,
                                          .bk = i % 2 ? bias + n_q : NULL,
                                          .out = out,
                                          .n_row = N_ROW,
                                          .n_q = n_q,
                                          .n_k = n_k,
                                          .stride = stride},
                   NULL);
        for (int r = 0; r < N_ROW; r++) {
            double sum[2] = {0};
            for (int32_t j = 0; j < n_q + n_k; j++)
                sum[j >= n_q] += pow((double)x[r * stride + j] + (i % 2 ? bias[j] : 0), 2);
            for (int of = 0; of < 2; of++) {
                CK_CLOSE(out[r * KV_SQUARES + of], sum[of], sum[of] * 2e-6, "row %d of %d and %d", r, n_q, n_k);
                ck_assert(out[r * KV_SQUARES + 2 + of] == 0);
            }
        }
        free(x), free(bias), free(out);
    }
}
END_TEST

START_TEST(test_save)
{
    static const int32_t from[] = {4, 0}, to[] = {1, 2};
    float *x = values_f32(4, N_ROW * 60, 3), bank[3 * 60] = {0};
    rows_save(x, bank, from, to, 2, 60, NULL);
    for (int i = 0; i < 60; i++)
        ck_assert(bank[i] == 0 && bank[60 + i] == x[4 * 60 + i] && bank[120 + i] == x[i]);
    free(x);
}
END_TEST

/* ---- Heads and the cache ---- */

struct heads_case {
    int32_t n_head, n_head_kv, head_dim, rope_dim, block_len;
    int neox, norm, bias, type;
    int together; /* the norm is of all heads, and of as many that another device has */
};

/* `mean`: of the squares that the norm goes by; 0: of the head's own. */
static void want_head(const struct heads_case *c, const float *in, const float *bias, const float *norm, double mean,
                      int32_t pos, const float *inv_freq, int rotates, double *out)
{
    double sum = 0;
    for (int i = 0; i < c->head_dim; i++) {
        out[i] = in[i] + (bias ? (double)bias[i] : 0);
        sum += out[i] * out[i];
    }
    for (int i = 0; i < c->head_dim && norm; i++)
        out[i] *= norm[i] / sqrt((mean > 0 ? mean : sum / c->head_dim) + 1e-6);
    for (int i = 0; i < c->rope_dim / 2 && rotates; i++) {
        double angle = (double)((float)pos * inv_freq[i]); /* the product is f32's, as in ref */
        double *a = c->neox ? &out[i] : &out[2 * i], *b = c->neox ? &out[i + c->rope_dim / 2] : &out[2 * i + 1];
        double p = *a, q = *b, mscale = 1.25;
        *a = (p * cos(angle) - q * sin(angle)) * mscale;
        *b = (p * sin(angle) + q * cos(angle)) * mscale;
    }
}

static void check_cached(const struct heads_case *c, const struct kv_layer *kv, const void *plane, const float *scale,
                         int32_t slot, int32_t head, const double *want)
{
    int64_t row = kv_row(kv, slot, head);
    double top = 0;
    for (int i = 0; i < c->head_dim; i++)
        top = fmax(top, fabs(want[i]));
    for (int i = 0; i < c->head_dim; i++) {
        int64_t at = row * c->head_dim + i;
        if (c->type == KV_BF16)
            CK_CLOSE(bf16_to_f32(((const uint16_t *)plane)[at]), want[i], fabs(want[i]) * 0x1.02p-8 + 2e-6, "bf16");
        else /* half a step of 3 mantissa bits, or of the smallest subnormal */
            CK_CLOSE(fp8_value(((const uint8_t *)plane)[at]) * scale[row], want[i],
                     fabs(want[i]) * 0x1.01p-4 + top / 448 * 0x1p-10 + 2e-6, "fp8, largest %g", top);
    }
}

static void check_heads(const struct heads_case *c)
{
    enum { N_BLOCK = 6 };
    static const int32_t pos[N_ROW] = {0, 1, 77, 4095, 131071};
    int32_t slot[N_ROW], dim = c->head_dim, n_q = c->n_head * dim, n_kv = c->n_head_kv * dim,
                         stride = n_q + 2 * n_kv + 4;
    for (int r = 0; r < N_ROW; r++)
        slot[r] = (r * 7 + 5) % (N_BLOCK * c->block_len);
    int32_t shift = __builtin_ctz((unsigned)c->block_len), n_pair = c->rope_dim / 2;
    size_t n_cached = (size_t)(N_BLOCK * c->block_len * c->n_head_kv);
    float *qkv = values_f32(8, (size_t)(N_ROW * stride), 3), *bias = values_f32(9, (size_t)stride, 1);
    float *q_norm = values_f32(10, (size_t)n_q, 2), *k_norm = values_f32(11, (size_t)n_kv, 2), inv_freq[128];
    float *squares = values_f32(12, N_ROW * KV_SQUARES, 1);
    for (int i = 0; i < N_ROW * KV_SQUARES; i++)
        squares[i] = (1 + squares[i]) * (float)n_q;
    for (int i = 0; i < n_pair; i++)
        inv_freq[i] = powf(10000, -(float)i / (float)n_pair);
    float *rope = malloc(sizeof *rope * (size_t)(N_ROW * n_pair) * 2);
    kv_rope_table(
        &(struct rope_args){
            .pos = pos, .inv_freq = inv_freq, .mscale = 1.25f, .table = rope, .n_row = N_ROW, .n_pair = n_pair},
        NULL);
    struct kv_layer kv = {.k = calloc(n_cached * (size_t)dim, 2),
                          .v = calloc(n_cached * (size_t)dim, 2),
                          .k_scale = calloc(n_cached, 4),
                          .v_scale = calloc(n_cached, 4),
                          .type = c->type,
                          .n_head_kv = c->n_head_kv,
                          .head_dim = dim,
                          .block_shift = shift};
    uint16_t *q_out = malloc(sizeof *q_out * (size_t)(N_ROW * n_q));
    kv_heads(&(struct heads_args){.q = qkv,
                                  .k = qkv + n_q,
                                  .v = qkv + n_q + n_kv,
                                  .bq = c->bias ? bias : NULL,
                                  .bk = c->bias ? bias + n_q : NULL,
                                  .bv = c->bias ? bias + n_q + n_kv : NULL,
                                  .q_norm = c->norm ? q_norm : NULL,
                                  .k_norm = c->norm ? k_norm : NULL,
                                  .squares = c->together ? squares : NULL,
                                  .n_q_all = 2 * n_q,
                                  .n_k_all = 2 * n_kv,
                                  .eps = 1e-6f,
                                  .rope = rope,
                                  .rope_dim = c->rope_dim,
                                  .neox = c->neox,
                                  .slot = slot,
                                  .q_out = (struct bf16 *)q_out,
                                  .cache = kv,
                                  .n_row = N_ROW,
                                  .n_head = c->n_head,
                                  .stride = stride},
             NULL);
    double want[KV_MAX_HEAD_DIM];
    for (int r = 0; r < N_ROW; r++) {
        const float *in = qkv + r * stride;
        double q_mean = c->together ? (double)squares[r * KV_SQUARES] / (2 * n_q) : 0;
        double k_mean = c->together ? (double)squares[r * KV_SQUARES + 1] / (2 * n_kv) : 0;
        for (int h = 0; h < c->n_head; h++) {
            int norm_at = c->together ? h * dim : 0;
            want_head(c, in + h * dim, c->bias ? bias + h * dim : NULL, c->norm ? q_norm + norm_at : NULL, q_mean,
                      pos[r], inv_freq, 1, want);
            for (int i = 0; i < dim; i++)
                CK_CLOSE(bf16_to_f32(q_out[(r * c->n_head + h) * dim + i]), want[i], fabs(want[i]) * 0x1.02p-8 + 2e-6,
                         "q row %d head %d element %d of %d", r, h, i, dim);
        }
        for (int h = 0; h < c->n_head_kv; h++) {
            int at = n_q + h * dim, norm_at = c->together ? h * dim : 0;
            want_head(c, in + at, c->bias ? bias + at : NULL, c->norm ? k_norm + norm_at : NULL, k_mean, pos[r],
                      inv_freq, 1, want);
            check_cached(c, &kv, kv.k, kv.k_scale, slot[r], h, want);
            at += n_kv;
            want_head(c, in + at, c->bias ? bias + at : NULL, NULL, 0, pos[r], inv_freq, 0, want);
            check_cached(c, &kv, kv.v, kv.v_scale, slot[r], h, want);
        }
    }
    free(qkv), free(bias), free(q_norm), free(k_norm), free(squares), free(rope), free(q_out);
    free(kv.k), free(kv.v), free(kv.k_scale), free(kv.v_scale);
}

START_TEST(test_heads)
{
    static const int32_t dims[] = {64, 80, 96, 128, 256};
    for (int i = 0; i < 5; i++)
        for (int variant = 0; variant < 6; variant++) {
            simt_seed((uint64_t)(i * 6 + variant));
            check_heads(&(struct heads_case){.n_head = 1 + i,
                                             .n_head_kv = variant == 1 ? 1 + i : 1,
                                             .head_dim = dims[i],
                                             .rope_dim = variant == 2 ? 32 : dims[i],
                                             .block_len = 1 << i,
                                             .neox = variant & 1,
                                             .norm = variant >> 1 != 0,
                                             .together = variant >= 4,
                                             .bias = variant != 3,
                                             .type = variant % 2 ? KV_FP8 : KV_BF16});
        }
}
END_TEST

/* ---- Sums over ranks ---- */

START_TEST(test_sum)
{
    static const int64_t sizes[] = {4, 8, 1028, 300000};
    for (int i = 0; i < 8; i++) {
        int64_t n = sizes[i / 2];
        int n_part = i % 2 ? 4 : 3;
        float *part = values_f32(5 + (uint64_t)i, (size_t)(n * n_part), 3), *x = malloc((size_t)n * sizeof *x);
        rows_sum(x, part, n_part, n, NULL);
        for (int64_t k = 0; k < n; k++) { /* the same bits: the order is given */
            float want = part[k];
            for (int p = 1; p < n_part; p++)
                want += part[p * n + k];
            ck_assert_msg(x[k] == want, "element %lld: %g, not %g", (long long)k, x[k], want);
        }
        free(part), free(x);
    }
}
END_TEST

/* ---- Moves ---- */

enum { M_LAYER = 3, M_HEAD = 2, M_BLOCK = 5, M_BLOCK_LEN = 4, M_SLOT = M_BLOCK * M_BLOCK_LEN };

/* The word that slot `slot` has at `word` of its row. */
static uint32_t *plane_word(const struct kv_plane *p, int layer, int slot, int head, int word)
{
    int row = slot / M_BLOCK_LEN * p->n_head * M_BLOCK_LEN + head * M_BLOCK_LEN + slot % M_BLOCK_LEN;
    return (uint32_t *)p->base + p->layer_bytes / 4 * layer + row * (p->row_bytes / 4) + word;
}

START_TEST(test_moves)
{
    /* a cycle, a chain and a copy: wrong if anything is written before all is read */
    static const int32_t src[] = {0, 1, 2, 9, 10, 17}, dst[] = {1, 2, 0, 10, 11, 3};
    enum { N_MOVE = 6 };
    for (int seed = 0; seed < 4; seed++) {
        simt_seed((uint64_t)seed);
        struct move_args a = {.n_plane = 3, .block_shift = 2, .src = src, .dst = dst, .n_move = N_MOVE};
        int32_t row_bytes[] = {160, 4, 520};
        uint32_t *before[3];
        for (int i = 0; i < 3; i++) {
            struct kv_plane p = {
                .n_layer = i == 2 ? 1 : M_LAYER, .n_head = i == 2 ? 1 : M_HEAD, .row_bytes = row_bytes[i]};
            p.layer_bytes = (int64_t)M_SLOT * p.n_head * p.row_bytes;
            size_t n_word = (size_t)(p.layer_bytes / 4 * p.n_layer);
            p.base = malloc(n_word * 4);
            before[i] = malloc(n_word * 4);
            for (size_t w = 0; w < n_word; w++)
                ((uint32_t *)p.base)[w] = before[i][w] = (uint32_t)rng_mix(w + (size_t)i * 99999);
            a.plane[i] = p;
        }
        a.staging = malloc(kv_staging_bytes(a.plane, 3, N_MOVE));
        ck_assert_uint_eq(kv_staging_bytes(a.plane, 3, N_MOVE), N_MOVE * (M_LAYER * M_HEAD * 164 + 520));
        kv_move(&a, NULL);
        for (int i = 0; i < 3; i++) {
            struct kv_plane was = a.plane[i];
            was.base = before[i];
            for (int layer = 0; layer < was.n_layer; layer++)
                for (int slot = 0; slot < M_SLOT; slot++)
                    for (int head = 0; head < was.n_head; head++)
                        for (int w = 0; w < was.row_bytes / 4; w++) {
                            int from = slot;
                            for (int m = 0; m < N_MOVE; m++)
                                from = dst[m] == slot ? src[m] : from;
                            ck_assert_uint_eq(*plane_word(&a.plane[i], layer, slot, head, w),
                                              *plane_word(&was, layer, from, head, w));
                        }
            free(a.plane[i].base), free(before[i]);
        }
        free(a.staging);
    }
}
END_TEST

START_TEST(test_slots_of_a_plan)
{
    struct plan_limits cap = {.n_span = 2, .n_row = 8, .n_held = 4, .n_kvop = 2, .n_bt = 8, .n_vocab = 10};
    struct step_plan p;
    ck_assert(!plan_create(&p, &cap, NULL));
    plan_span(&p, &(struct span){.ctx_len = 3, .n_chain = 2, .law = -1});
    plan_row(&p, 0, 3, PARENT_CTX, 0);
    plan_row(&p, 0, 4, 0, 0);
    plan_blocks(&p, (int32_t[]){5, 2}, 2);
    plan_span(&p, &(struct span){.ctx_len = 5, .law = -1});
    plan_held(&p, 1, PARENT_CTX);
    plan_row(&p, 0, 6, HELD_PARENT(0), 3);
    plan_blocks(&p, (int32_t[]){1, 7}, 2);
    plan_kvop(&p, 10, 20, 3);
    plan_kvop(&p, 13, 10, 1);
    int32_t slot[3], src[8], dst[8];
    kv_row_slots(&p, 4, slot);
    ck_assert(slot[0] == 5 * 4 + 3 && slot[1] == 2 * 4 && slot[2] == 7 * 4 + 2);
    ck_assert_int_eq(kv_moves(&p, src, dst), 4);
    ck_assert(src[2] == 12 && dst[2] == 22 && src[3] == 13 && dst[3] == 10);
    plan_free(&p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("rows");
    tcase_add_test(tc, test_block_threads);
    tcase_add_test(tc, test_embed);
    tcase_add_test(tc, test_norm);
    tcase_add_test(tc, test_norm_of_some_rows);
    tcase_add_test(tc, test_plane);
    tcase_add_loop_test(tc, test_glu, 0, 2);
    tcase_add_test(tc, test_add);
    tcase_add_test(tc, test_cap);
    tcase_add_test(tc, test_squares);
    tcase_add_test(tc, test_save);
    tcase_add_test(tc, test_heads);
    tcase_add_test(tc, test_sum);
    tcase_add_test(tc, test_moves);
    tcase_add_test(tc, test_slots_of_a_plan);
    return suite_run(tc);
}
