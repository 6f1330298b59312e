/* Attention of a few rows over the keys of one KV head, for the query heads that share it.
 *
 * Keys are visited in position order, in tiles cut at absolute positions, with the running maximum and sum of online
 * softmax (Milakov and Gimelshein, arXiv:1805.02867). A tile of K is read as stored and transposed once for all rows
 * and heads, so that lanes are keys: a score is one chain over the head's dimensions, and an output one chain over the
 * keys, whatever rows are computed beside it. Lanes that a row does not see are replaced, not multiplied by zero. */
#include <math.h>

#include "functions.h"
#include "visible.h"

struct run {
    const struct attend_job *j;
    int32_t width;    /* dim rounded up to 16 */
    float *kt, *v;    /* [width][KEY_TILE], [KEY_TILE][width]: the tile at hand */
    float *acc;       /* [row][n_q][width] */
    float *top, *sum; /* [row][n_q]: of the scores so far */
    float *p;         /* [n_q][KEY_TILE] */
    struct visible vis[ATTEND_ROWS];
};

/* ---- Loading a tile ---- */

/* Elements 16 c .. of one head as stored; those from dim on are zero. */
VEC vf load16(const int type, const char *row, int32_t c, int32_t dim)
{
    const size_t size = type == DT_F32 ? 4 : 2;
    char part[64] = {0};
    if (type == DT_Q8_0) { /* blocks of 32: f16 scale, codes */
        const char *block = row + 34 * (c / 2);
        uint16_t d;
        memcpy(&d, block, 2);
        return vf_mul(vf_load_i8((const int8_t *)block + 2 + 16 * (c % 2)), vf_set1(f16_to_f32(d)));
    }
    const char *p = row + 16 * size * (size_t)c;
    if (dim - 16 * c < 16) {
        memcpy(part, p, size * (size_t)(dim - 16 * c));
        p = part;
    }
    return type == DT_F32 ? vf_load((const float *)(const void *)p) : type == DT_F16 ? vf_load_f16(p) : vf_load_bf16(p);
}

VEC void load_k(const int type, struct run *t, const char *const row[KEY_TILE])
{
    for (int32_t half = 0; half < KEY_TILE; half += 16)
        for (int32_t c = 0; c < t->width / 16; c++) {
            vf r[16];
            VEC_UNROLL(16)
            for (int i = 0; i < 16; i++)
                r[i] = row[half + i] ? load16(type, row[half + i], c, t->j->dim) : vf_zero();
            vf_transpose(r);
            VEC_UNROLL(16)
            for (int i = 0; i < 16; i++)
                vf_store(t->kt + (size_t)(16 * c + i) * KEY_TILE + half, r[i]);
        }
}

VEC void load_v(const int type, struct run *t, const char *const row[KEY_TILE])
{
    for (int32_t i = 0; i < KEY_TILE; i++)
        for (int32_t c = 0; row[i] && c < t->width / 16; c++)
            vf_store(t->v + (size_t)i * (size_t)t->width + 16 * c, load16(type, row[i], c, t->j->dim));
}

#define BY_TYPE(fn, type, ...)                                                                                         \
    do {                                                                                                               \
        if ((type) == DT_F32)                                                                                          \
            fn(DT_F32, __VA_ARGS__);                                                                                   \
        else if ((type) == DT_F16)                                                                                     \
            fn(DT_F16, __VA_ARGS__);                                                                                   \
        else if ((type) == DT_BF16)                                                                                    \
            fn(DT_BF16, __VA_ARGS__);                                                                                  \
        else                                                                                                           \
            fn(DT_Q8_0, __VA_ARGS__);                                                                                  \
    } while (0)

/* Lanes lo..hi-1 from the sequence slots given. */
static void load_tile(struct run *t, const int32_t slot[KEY_TILE], int32_t lo, int32_t hi)
{
    const struct attend_job *j = t->j;
    const char *k[KEY_TILE] = {0}, *v[KEY_TILE] = {0};
    for (int32_t i = lo; i < hi; i++) {
        size_t block = (size_t)j->plan->bt[j->span->bt_off + slot[i] / j->block_len];
        size_t at = (size_t)(slot[i] % j->block_len);
        k[i] = j->k + block * j->k_block + at * j->k_row;
        v[i] = j->v + block * j->v_block + at * j->v_row;
    }
    BY_TYPE(load_k, j->k_type, t, k);
    BY_TYPE(load_v, j->v_type, t, v);
}

/* ---- One row's heads against the tile at hand ---- */

VEC void scores(const int N, const struct run *t, const float *q, vf s[][2])
{
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++)
        s[n][0] = s[n][1] = vf_zero();
    for (int32_t d = 0; d < t->j->dim; d++) {
        vf k0 = vf_load(t->kt + (size_t)d * KEY_TILE), k1 = vf_load(t->kt + (size_t)d * KEY_TILE + 16);
        VEC_UNROLL(4)
        for (int n = 0; n < N; n++) {
            vf qd = vf_set1(q[n * t->j->dim + d]);
            s[n][0] = vf_fma(qd, k0, s[n][0]);
            s[n][1] = vf_fma(qd, k1, s[n][1]);
        }
    }
}

/* Scores to weights p under the new maximum; returns what older sums shrink by. */
VEC float weigh(const struct attend_job *j, vf s[2], int32_t lo, int32_t hi, float *top, float *sum, float *p)
{
    const vf none = vf_set1(-INFINITY), scale = vf_set1(j->scale);
    int32_t lo1 = lo > 16 ? lo - 16 : 0, hi1 = hi > 16 ? hi - 16 : 0, lo0 = lo < 16 ? lo : 16, hi0 = hi < 16 ? hi : 16;
    vf s0 = vf_select(lo0, hi0, vf_mul(s[0], scale), none), s1 = vf_select(lo1, hi1, vf_mul(s[1], scale), none);
    float tile_top = vf_hmax(vf_max(s0, s1)), new_top = tile_top > *top ? tile_top : *top;
    vf p0 = vf_select(lo0, hi0, vf_exp(vf_sub(s0, vf_set1(new_top))), vf_zero());
    vf p1 = vf_select(lo1, hi1, vf_exp(vf_sub(s1, vf_set1(new_top))), vf_zero());
    float one[16], shrink;
    vf_store(one, vf_exp(vf_set1(*top - new_top))); /* of -infinity: about 1e-38, times sums that are still 0 */
    shrink = one[0];
    vf_store(p, p0);
    vf_store(p + 16, p1);
    *sum = *sum * shrink + vf_sum(vf_add(p0, p1));
    *top = new_top;
    return shrink;
}

VEC void add_values(const int N, const int C, const struct run *t, int32_t c, int32_t lo, int32_t hi, float *acc,
                    const float *shrink, const float *p)
{
    vf a[4][2];
    const float *v = t->v + 16 * c;
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++) {
        VEC_UNROLL(2)
        for (int i = 0; i < C; i++)
            a[n][i] = vf_mul(vf_load(acc + n * t->width + 16 * (c + i)), vf_set1(shrink[n]));
    }
    for (int32_t key = lo; key < hi; key++) {
        VEC_UNROLL(2)
        for (int i = 0; i < C; i++) {
            vf value = vf_load(v + (size_t)key * (size_t)t->width + 16 * i);
            VEC_UNROLL(4)
            for (int n = 0; n < N; n++)
                a[n][i] = vf_fma(vf_set1(p[n * KEY_TILE + key]), value, a[n][i]);
        }
    }
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++) {
        VEC_UNROLL(2)
        for (int i = 0; i < C; i++)
            vf_store(acc + n * t->width + 16 * (c + i), a[n][i]);
    }
}

/* N heads from h on, of row i, over lanes lo..hi-1. */
VEC void heads(const int N, struct run *t, int32_t i, int32_t h, int32_t lo, int32_t hi)
{
    const struct attend_job *j = t->j;
    const float *q = j->q + (size_t)(j->row0 + i) * j->q_stride + h * j->dim;
    int32_t at = i * j->n_q + h;
    float *acc = t->acc + (size_t)at * (size_t)t->width, shrink[4];
    vf s[4][2];
    scores(N, t, q, s);
    for (int n = 0; n < N; n++)
        shrink[n] = weigh(j, s[n], lo, hi, &t->top[at + n], &t->sum[at + n], t->p + n * KEY_TILE);
    int32_t c = 0;
    for (; c + 2 <= t->width / 16; c += 2)
        add_values(N, 2, t, c, lo, hi, acc, shrink, t->p);
    if (c < t->width / 16)
        add_values(N, 1, t, c, lo, hi, acc, shrink, t->p);
}

static void row_tile(struct run *t, int32_t i, int32_t lo, int32_t hi)
{
    int32_t h = 0;
    if (VEC_CHAINS == 4)
        for (; h + 4 <= t->j->n_q; h += 4)
            heads(4, t, i, h, lo, hi);
    for (; h + 2 <= t->j->n_q; h += 2)
        heads(2, t, i, h, lo, hi);
    if (h < t->j->n_q)
        heads(1, t, i, h, lo, hi);
}

/* ---- All tiles ---- */

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Lanes of the tile at `base` that row i sees. */
static void row_lanes(const struct run *t, int32_t i, int32_t base, int32_t *lo, int32_t *hi)
{
    const struct visible *v = &t->vis[i];
    *lo = max_i32(0, v->first_pos - base);
    *hi = min_i32(KEY_TILE, v->first_pos + v->n_prefix + v->n_tail - base);
}

static void tile_at(struct run *t, int32_t base)
{
    int32_t slot[KEY_TILE], lo[ATTEND_ROWS], hi[ATTEND_ROWS], first = KEY_TILE, end = 0;
    uint32_t shared = 0; /* rows all of whose keys here stand at the slot equal to their position */
    for (int32_t i = 0; i < t->j->n_row; i++) {
        row_lanes(t, i, base, &lo[i], &hi[i]);
        if (lo[i] < hi[i] && base + hi[i] <= t->vis[i].first_pos + t->vis[i].n_prefix) {
            shared |= 1u << i;
            first = min_i32(first, lo[i]);
            end = max_i32(end, hi[i]);
        }
    }
    for (int32_t lane = first; lane < end; lane++)
        slot[lane] = base + lane;
    if (shared)
        load_tile(t, slot, first, end);
    for (int32_t i = 0; i < t->j->n_row; i++)
        if (shared >> i & 1)
            row_tile(t, i, lo[i], hi[i]);
    for (int32_t i = 0; i < t->j->n_row; i++) { /* tree rows: each with the ancestors gathered */
        if (shared >> i & 1 || lo[i] >= hi[i])
            continue;
        for (int32_t lane = lo[i]; lane < hi[i]; lane++)
            slot[lane] = visible_slot(&t->vis[i], base + lane - t->vis[i].first_pos);
        load_tile(t, slot, lo[i], hi[i]);
        row_tile(t, i, lo[i], hi[i]);
    }
}

static void store_rows(const struct run *t)
{
    const struct attend_job *j = t->j;
    for (int32_t i = 0; i < j->n_row; i++)
        for (int32_t h = 0; h < j->n_q; h++) {
            int32_t at = i * j->n_q + h, c = 0;
            const float *acc = t->acc + (size_t)at * (size_t)t->width;
            float *out = j->q + (size_t)(j->row0 + i) * j->q_stride + h * j->dim;
            vf sum = vf_set1(t->sum[at]);
            for (; c + 16 <= j->dim; c += 16)
                vf_store(out + c, vf_div(vf_load(acc + c), sum));
            if (c < j->dim)
                vf_store_n(out + c, vf_div(vf_load(acc + c), sum), j->dim - c);
        }
}

void CPU_FN(attend)(const struct attend_job *j)
{
    struct run t = {.j = j, .width = (j->dim + 15) / 16 * 16};
    int32_t n_out = ATTEND_ROWS * j->n_q, first = INT32_MAX, end = 0;
    t.kt = j->scratch;
    t.v = t.kt + (size_t)t.width * KEY_TILE;
    t.acc = t.v + (size_t)t.width * KEY_TILE;
    t.top = t.acc + (size_t)n_out * (size_t)t.width;
    t.sum = t.top + n_out;
    t.p = t.sum + n_out;
    memset(t.acc, 0, sizeof *t.acc * (size_t)(j->n_row * j->n_q) * (size_t)t.width);
    for (int32_t i = 0; i < j->n_row * j->n_q; i++) {
        t.top[i] = -INFINITY;
        t.sum[i] = 0;
    }
    for (int32_t i = 0; i < j->n_row; i++) {
        visible_of(j->plan, j->span, j->row0 + i, j->window, &t.vis[i]);
        first = min_i32(first, t.vis[i].first_pos);
        end = max_i32(end, t.vis[i].first_pos + t.vis[i].n_prefix + t.vis[i].n_tail);
    }
    for (int32_t base = first / KEY_TILE * KEY_TILE; base < end; base += KEY_TILE)
        tile_at(&t, base);
    store_rows(&t);
}
