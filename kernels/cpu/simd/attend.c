/* Attention of a few rows over the keys of one KV head, for the query heads that share it.
 *
 * Keys are taken in segments of positions, cut at absolute ones. In a segment all scores come first, then the weights
 * under their maximum, then the sums of values; segments are merged as merge.h says. */
#include "attend.h"
#include "merge.h"
#include "visible.h"

enum {
    AHEAD = 4,       /* tiles from the one that is worked on to the one that is fetched */
    WIDEN_FROM = 12, /* queries of a tile from which on a copy in f32 pays */
};

struct pass { /* one call of attend; what it points to is the job's scratch */
    const struct attend_job *j;
    int32_t width, block_bits;
    float *wide;      /* [KEY_TILE][width], and scales: a tile of K or V in f32 */
    char *gathered;   /* a tile as stored, its keys from anywhere */
    float *scale;     /* of a tile of V in Q8_0 */
    float *q, *score; /* [dim][q_step] of all rows' heads, row by row; [query][SCORE_STRIDE]: scores of the
                         segment at hand, then weights */
    size_t q_step;
    int32_t *row; /* [query] */
    struct partial out;
    int32_t end; /* of the positions whose slots are equal to them */
    struct visible vis[ATTEND_ROWS];

    /* The segment at hand: its first position; its tiles that are seen; what row i sees of it, lo..hi-1, up to `prefix`
     * at the slots equal to positions. */
    int32_t base, first, n_tile;
    int32_t lo[ATTEND_ROWS], hi[ATTEND_ROWS], prefix[ATTEND_ROWS];
};

struct tile { /* 32 positions of a segment, from `at` on */
    int32_t at;
    int32_t lo[ATTEND_ROWS], hi[ATTEND_ROWS]; /* lanes that row i sees */
    int32_t first, end;                       /* lanes that some row of `shared` sees */
    uint32_t shared, own;                     /* rows whose keys all stand at their positions; the other rows that see
                                                 any: tree rows among their ancestors */
    struct ahead ahead;
};

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t clamp(int32_t x, int32_t hi)
{
    return max_i32(0, min_i32(x, hi));
}

/* ---- Where the keys of a tile are ---- */

static void find_tile(const struct pass *t, int32_t at, struct tile *x)
{
    x->at = at;
    x->first = KEY_TILE;
    x->end = 0;
    x->shared = x->own = 0;
    for (int32_t i = 0; i < t->j->n_row; i++) {
        x->lo[i] = clamp(t->lo[i] - at, KEY_TILE);
        x->hi[i] = clamp(t->hi[i] - at, KEY_TILE);
        if (x->lo[i] >= x->hi[i])
            continue;
        if (at + x->hi[i] > t->prefix[i]) {
            x->own |= 1u << i;
            continue;
        }
        x->shared |= 1u << i;
        x->first = min_i32(x->first, x->lo[i]);
        x->end = max_i32(x->end, x->hi[i]);
    }
}

/* Sequence slot `slot` and those that follow it to a multiple of 16: rows of V, or a group of K. */
static const char *slots_at(const struct pass *t, const struct kv_pages *p, int32_t slot)
{
    const struct attend_job *j = t->j;
    size_t block = (size_t)j->plan->bt[j->span->bt_off + (slot >> t->block_bits)];
    return p->data + block * p->block + (size_t)(slot & (j->block_len - 1)) * p->row;
}

/* Sixteen slots from a multiple of 16 on stand side by side. */
static int in_groups(const struct pass *t)
{
    return t->j->block_len >= KEY_LANES;
}

static void shared_groups(const struct pass *t, const struct kv_pages *p, const struct tile *x, const char *group[2])
{
    int32_t slot = t->base + x->at;
    int first = x->first<16, second = x->end> 16; /* of what no row sees any group will do */
    group[0] = slots_at(t, p, first ? slot : slot + 16);
    group[1] = second ? slots_at(t, p, slot + 16) : group[0];
}

/* The sequence slot of a lane for row i, or for the shared rows where i is -1. */
static int32_t slot_of(const struct pass *t, const struct tile *x, int32_t i, int32_t lane)
{
    int32_t pos = t->base + x->at + lane;
    return i < 0 ? pos : visible_slot(&t->vis[i], pos - t->vis[i].first_pos);
}

/* Keys lo..hi-1 of row i, or of the shared rows, one by one. */
static void gather_k(const struct pass *t, const struct tile *x, int32_t i, int32_t lo, int32_t hi, struct tile_k *k)
{
    const struct attend_job *j = t->j;
    int32_t lanes = min_i32(KEY_LANES, j->block_len);
    size_t group = KEY_LANES * j->k.row;
    for (int32_t lane = lo; lane < hi; lane++) {
        int32_t slot = slot_of(t, x, i, lane);
        struct lane from = {(char *)slots_at(t, &j->k, slot & -lanes), lanes, slot & (lanes - 1)};
        lane_copy(j->k.type, j->dim, from, (struct lane){t->gathered + lane / 16 * group, KEY_LANES, lane % 16});
    }
    *k = (struct tile_k){.type = j->k.type, .group = {t->gathered, t->gathered + group}};
}

static void gather_v(const struct pass *t, const struct tile *x, int32_t i, int32_t lo, int32_t hi, struct tile_v *v)
{
    size_t row = t->j->v.row;
    for (int32_t lane = lo; lane < hi; lane++)
        memcpy(t->gathered + (size_t)lane * row, slots_at(t, &t->j->v, slot_of(t, x, i, lane)), row);
    *v = (struct tile_v){.type = t->j->v.type, .step = row, .group = {t->gathered, t->gathered + 16 * row}};
}

/* The tile that is AHEAD of this one: all tiles of K of a segment come first, then those of V. `n_step`: times that
 * `fetch` will be called. */
static void look_ahead(const struct pass *t, struct tile *x, int of_v, int32_t n_step)
{
    int32_t i = (x->at - t->first) / KEY_TILE + AHEAD, pos = t->base + t->first;
    if (i >= t->n_tile) { /* in what follows */
        i -= t->n_tile;
        pos = of_v ? t->base + SEGMENT : pos;
        of_v = !of_v;
    }
    const struct kv_pages *p = of_v ? &t->j->v : &t->j->k;
    pos += i * KEY_TILE;
    x->ahead.at = x->ahead.end = NULL;
    if (!in_groups(t) || pos >= t->end)
        return;
    x->ahead.at = slots_at(t, p, pos);
    x->ahead.end = x->ahead.at + 16 * p->row;
    x->ahead.other = pos + 16 < t->end ? slots_at(t, p, pos + 16) - x->ahead.at : 0;
    x->ahead.step = ((uint32_t)p->row / 4 + (uint32_t)n_step - 1) / (uint32_t)n_step * 64;
}

/* ---- Scores of a tile ---- */

/* The next rows i..*end-1 of a set that follow each other, from *i on. */
static int next_rows(uint32_t rows, int32_t *i, int32_t *end)
{
    rows &= ~0u << *i;
    if (!rows)
        return 0;
    *i = __builtin_ctz(rows);
    *end = *i + __builtin_ctz(~(rows >> *i));
    return 1;
}

static int worth_a_copy(const struct pass *t, const struct tile *x, int32_t type)
{
    return type != DT_F32 && __builtin_popcount(x->shared) * t->j->n_q >= WIDEN_FROM;
}

#define SCORES(n)                                                                                                      \
    BY_TYPE(scores, k->type, n, k, t->j->dim, t->q + q, t->q_step, t->score + q * SCORE_STRIDE + x->at, &x->ahead)

static void score_queries(const struct pass *t, struct tile *x, const struct tile_k *k, int32_t q, int32_t q_end)
{
    if (VEC_CHAINS == 4)
        for (; q + 4 <= q_end; q += 4)
            SCORES(4);
    for (; q + 2 <= q_end; q += 2)
        SCORES(2);
    if (q < q_end)
        SCORES(1);
}

static void shared_k(const struct pass *t, struct tile *x, struct tile_k *k)
{
    const struct attend_job *j = t->j;
    *k = (struct tile_k){.type = j->k.type};
    if (in_groups(t))
        shared_groups(t, &j->k, x, k->group);
    else
        gather_k(t, x, -1, x->first, x->end, k);
    if (worth_a_copy(t, x, k->type)) {
        BY_TYPE(widen_k, k->type, k, j->dim, t->wide, &x->ahead);
        k->type = wide_type(k->type);
        k->group[0] = (char *)t->wide;
        k->group[1] = (char *)(t->wide + KEY_LANES * (j->dim + (k->type == Q8_WIDE ? j->dim / 32 : 0)));
    }
}

static void score_tile(const struct pass *t, int32_t at)
{
    int32_t n_q = t->j->n_q, end;
    struct tile x;
    struct tile_k k;
    find_tile(t, at, &x);
    look_ahead(t, &x, 0, max_i32(1, t->j->dim / 2));
    if (x.shared)
        shared_k(t, &x, &k);
    for (int32_t i = 0; next_rows(x.shared, &i, &end); i = end)
        score_queries(t, &x, &k, i * n_q, end * n_q);
    for (int32_t i = 0; next_rows(x.own, &i, &end); i++) {
        gather_k(t, &x, i, x.lo[i], x.hi[i], &k);
        score_queries(t, &x, &k, i * n_q, (i + 1) * n_q);
    }
}

/* ---- Values of a tile ---- */

#define VALUES(C, last) BY_TYPE(values, v->type, N, C, last, v, c, lo, hi, p, acc, t->width, &x->ahead)

VEC void add_values(const int N, const struct pass *t, struct tile *x, const struct tile_v *v, int32_t q, int32_t lo,
                    int32_t hi)
{
    const float *p = t->score + q * SCORE_STRIDE + x->at;
    float *acc = t->out.acc + q * t->width;
    int32_t c = 0, n = t->j->dim / 16, last = t->j->dim % 16;
    if (lo >= hi)
        return;
    if (VEC_CHAINS == 4 && !has_scales(v->type))
        for (; c + 4 <= n; c += 4)
            VALUES(4, 0);
    for (; c + 2 <= n; c += 2)
        VALUES(2, 0);
    if (c < n) {
        VALUES(1, 0);
        c++;
    }
    if (last)
        VALUES(1, last);
}

static void add_values_1(const struct pass *t, struct tile *x, const struct tile_v *v, int32_t q, int32_t lo,
                         int32_t hi)
{
    add_values(1, t, x, v, q, lo, hi);
}

/* N queries together where all see the keys, each alone before and after. */
VEC void add_group(const int N, const struct pass *t, struct tile *x, const struct tile_v *v, int32_t q)
{
    int32_t lo = 0, hi = KEY_TILE;
    for (int n = 0; n < N; n++) {
        lo = max_i32(lo, x->lo[t->row[q + n]]);
        hi = min_i32(hi, x->hi[t->row[q + n]]);
    }
    hi = max_i32(lo, hi);
    for (int n = 0; n < N; n++)
        add_values_1(t, x, v, q + n, x->lo[t->row[q + n]], min_i32(lo, x->hi[t->row[q + n]]));
    add_values(N, t, x, v, q, lo, hi);
    for (int n = 0; n < N; n++)
        add_values_1(t, x, v, q + n, max_i32(hi, x->lo[t->row[q + n]]), x->hi[t->row[q + n]]);
}

static void value_queries(const struct pass *t, struct tile *x, const struct tile_v *v, int32_t q, int32_t q_end)
{
    if (VEC_CHAINS == 4)
        for (; q + 4 <= q_end; q += 4)
            add_group(4, t, x, v, q);
    for (; q + 2 <= q_end; q += 2)
        add_group(2, t, x, v, q);
    if (q < q_end)
        add_group(1, t, x, v, q);
}

static void scales_of(const struct pass *t, struct tile_v *v, int32_t lo, int32_t hi)
{
    if (v->type == DT_Q8_0) {
        take_scales(v, t->j->dim, lo, hi, t->scale);
        v->scale = t->scale;
    }
}

static void shared_v(const struct pass *t, struct tile *x, struct tile_v *v)
{
    const struct attend_job *j = t->j;
    *v = (struct tile_v){.type = j->v.type, .step = j->v.row};
    if (in_groups(t))
        shared_groups(t, &j->v, x, v->group);
    else
        gather_v(t, x, -1, x->first, x->end, v);
    scales_of(t, v, x->first, x->end);
    if (worth_a_copy(t, x, v->type)) {
        BY_TYPE(widen_v, v->type, v, j->dim, x->first, x->end, t->wide, &x->ahead);
        v->type = wide_type(v->type);
        v->step = sizeof(float) * (size_t)t->width;
        v->group[0] = (char *)t->wide;
        v->group[1] = (char *)(t->wide + 16 * t->width);
    }
}

static void value_tile(const struct pass *t, int32_t at)
{
    int32_t n_q = t->j->n_q, end;
    struct tile x;
    struct tile_v v;
    find_tile(t, at, &x);
    look_ahead(t, &x, 1, KEY_TILE * ((t->j->dim + 63) / 64));
    if (x.shared)
        shared_v(t, &x, &v);
    for (int32_t i = 0; next_rows(x.shared, &i, &end); i = end)
        value_queries(t, &x, &v, i * n_q, end * n_q);
    for (int32_t i = 0; next_rows(x.own, &i, &end); i++) {
        gather_v(t, &x, i, x.lo[i], x.hi[i], &v);
        scales_of(t, &v, x.lo[i], x.hi[i]);
        value_queries(t, &x, &v, i * n_q, (i + 1) * n_q);
    }
}

/* ---- Segments ---- */

static int32_t find_segment(struct pass *t, int32_t number)
{
    int32_t first = SEGMENT, end = 0;
    t->base = number * SEGMENT;
    for (int32_t i = 0; i < t->j->n_row; i++) {
        const struct visible *v = &t->vis[i];
        t->lo[i] = clamp(v->first_pos - t->base, SEGMENT);
        t->prefix[i] = clamp(v->first_pos + v->n_prefix - t->base, SEGMENT);
        t->hi[i] = clamp(v->first_pos + v->n_prefix + v->n_tail - t->base, SEGMENT);
        first = min_i32(first, t->lo[i]);
        end = max_i32(end, t->hi[i]);
    }
    t->first = first / KEY_TILE * KEY_TILE;
    t->n_tile = (end - t->first + KEY_TILE - 1) / KEY_TILE;
    return end;
}

static void segment(struct pass *t, int32_t number, float *out)
{
    const float log2_e = 1.44269504f;
    int32_t n_query = t->j->n_row * t->j->n_q, end = find_segment(t, number);
    t->out = partial_of(t->j, out);
    for (int32_t at = t->first; at < end; at += KEY_TILE)
        score_tile(t, at);
    for (int32_t i = 0; i < n_query; i++) {
        int32_t row = t->row[i];
        t->out.top[i] = -INFINITY;
        t->out.sum[i] = 0;
        if (t->lo[row] < t->hi[row])
            weigh(t->score + i * SCORE_STRIDE, t->lo[row], t->hi[row], t->j->scale * log2_e, &t->out.top[i],
                  &t->out.sum[i]);
    }
    memset(t->out.acc, 0, sizeof *out * (size_t)(n_query * t->width));
    for (int32_t at = t->first; at < end; at += KEY_TILE)
        value_tile(t, at);
}

static void take_query(struct pass *t, int32_t row, int32_t head)
{
    const struct attend_job *j = t->j;
    int32_t i = row * j->n_q + head;
    const float *q = j->q + (size_t)(j->row0 + row) * j->q_stride + head * j->dim;
    t->row[i] = row;
    for (int32_t d = 0; d < j->dim; d++)
        t->q[(size_t)d * t->q_step + (size_t)i] = q[d];
}

/* Returns what is left of the scratch. */
static float *begin(struct pass *t, const struct attend_job *j)
{
    size_t width = (size_t)attend_width(j), n_query = attend_queries(j->n_q), tile = KEY_TILE * (width + width / 32);
    t->j = j;
    t->width = (int32_t)width;
    t->block_bits = __builtin_ctz((uint32_t)j->block_len);
    t->end = 0;
    t->wide = j->scratch;
    t->gathered = (char *)(t->wide + tile);
    t->scale = t->wide + 2 * tile;
    t->q = t->scale + tile;
    t->q_step = (size_t)(j->n_row * j->n_q + 3) / 4 * 4;
    t->score = t->q + n_query * width;
    t->row = (int32_t *)(void *)(t->score + n_query * SCORE_STRIDE);
    for (int32_t i = 0; i < j->n_row; i++) {
        visible_of(j->plan, j->span, j->row0 + i, j->window, &t->vis[i]);
        t->end = max_i32(t->end, t->vis[i].first_pos + t->vis[i].n_prefix);
        for (int32_t h = 0; h < j->n_q; h++)
            take_query(t, i, h);
    }
    return (float *)(void *)(t->row + n_query);
}

void CPU_FN(attend)(const struct attend_job *j, int32_t first, int32_t end, float *out)
{
    struct pass t;
    struct pile pile = {0};
    float *buf = begin(&t, j), *part = out;
    for (int i = 0; i == 0 || (end - 1) >> (i - 1); i++, buf += attend_partial(j->n_q, j->dim))
        pile.run[i] = buf;
    for (int32_t i = first; i < end; i++) {
        segment(&t, i, part);
        CPU_FN(pile_add)(&pile, j, i, &part);
    }
    CPU_FN(partial_copy)(j, out, CPU_FN(pile_total)(&pile, j));
}
