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
    float *wide;    /* a tile of K or V in f32 */
    char *gathered; /* a tile as stored, its keys from anywhere */
    float *q;       /* [dim][q_step]: all rows' heads, row by row */
    size_t q_step;
    float *score; /* [query][SCORE_STRIDE]: scores of the segment at hand, then weights */
    int32_t *row; /* [query] */
    int32_t end;  /* of the positions whose slots are equal to them */
    struct visible vis[ATTEND_ROWS];

    /* The segment at hand: its first position; its tiles that are seen; what row i sees of it, lo..hi-1, up to `prefix`
     * at the slots equal to positions; its result. */
    int32_t base, first, n_tile;
    int32_t lo[ATTEND_ROWS], hi[ATTEND_ROWS], prefix[ATTEND_ROWS];
    struct partial out;
};

struct view {                                 /* who sees what of a tile */
    int32_t at;                               /* from the segment's first position */
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

static void look_at(const struct pass *t, int32_t at, struct view *x)
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

/* ---- Where the keys of a tile are ---- */

/* Sequence slot `slot` and those that follow it to a multiple of 16. */
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

/* Keys lo..hi-1 of row i, or of the shared rows where i is -1, one by one. */
static void gather(const struct pass *t, const struct kv_pages *p, const struct view *x, int32_t i, int32_t lo,
                   int32_t hi, struct tile *k)
{
    int32_t n = p->lanes == 1 ? 1 : KEY_LANES, step = p->step == 1 ? 1 : KEY_LANES;
    for (int32_t lane = lo; lane < hi; lane++) {
        int32_t pos = t->base + x->at + lane;
        int32_t slot = i < 0 ? pos : visible_slot(&t->vis[i], pos - t->vis[i].first_pos), in = slot & (p->lanes - 1);
        struct lane from = {(char *)slots_at(t, p, slot - in), p->lanes, p->step, in};
        struct lane to = {t->gathered + (size_t)(lane / n * n) * p->row, n, step, lane % n};
        lane_copy(p->type, t->j->dim, from, to);
    }
    *k = (struct tile){.type = p->type, .group = {t->gathered, t->gathered + 16 * p->row}, .row = p->row};
}

static void shared_tile(const struct pass *t, const struct kv_pages *p, const struct view *x, struct tile *k)
{
    int32_t slot = t->base + x->at;
    if (!in_groups(t)) {
        gather(t, p, x, -1, x->first, x->end, k);
        return;
    }
    k->type = p->type;
    k->row = p->row;
    k->group[0] = slots_at(t, p, x->first < 16 ? slot : slot + 16); /* of what no row sees any group will do */
    k->group[1] = x->end > 16 ? slots_at(t, p, slot + 16) : k->group[0];
}

/* The tile that is AHEAD of this one: all tiles of K of a segment come first, then those of V. */
static void look_ahead(const struct pass *t, struct view *x, int of_v)
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
}

static int worth_a_copy(const struct pass *t, const struct view *x, int32_t type)
{
    return type != DT_F32 && __builtin_popcount(x->shared) * t->j->n_q >= WIDEN_FROM;
}

/* ---- Scores of a tile ---- */

#define SCORES(N)                                                                                                      \
    BY_TYPE(scores, k->type, N, k, t->j->dim, t->q + q, t->q_step, t->score + q * SCORE_STRIDE + x->at, &x->ahead)

static void score_queries(const struct pass *t, struct view *x, const struct tile *k, int32_t q, int32_t q_end)
{
    if (VEC_CHAINS == 4)
        for (; q + 4 <= q_end; q += 4)
            SCORES(4);
    for (; q + 2 <= q_end; q += 2)
        SCORES(2);
    if (q < q_end)
        SCORES(1);
}

static void widen_k(const struct pass *t, struct view *x, struct tile *k)
{
    int32_t dim = t->j->dim, type = wide_type(k->type);
    BY_TYPE(widen_groups, k->type, k, dim, t->wide, &x->ahead);
    *k = (struct tile){
        .type = type,
        .group = {(char *)t->wide, (char *)(t->wide + KEY_LANES * (dim + (type == Q8_WIDE ? dim / DIMS : 0)))}};
}

static void score_tile(const struct pass *t, int32_t at)
{
    int32_t n_q = t->j->n_q, end;
    struct view x;
    struct tile k;
    look_at(t, at, &x);
    look_ahead(t, &x, 0);
    if (x.shared)
        shared_tile(t, &t->j->k, &x, &k);
    if (worth_a_copy(t, &x, t->j->k.type))
        widen_k(t, &x, &k);
    for (int32_t i = 0; next_rows(x.shared, &i, &end); i = end)
        score_queries(t, &x, &k, i * n_q, end * n_q);
    for (int32_t i = 0; next_rows(x.own, &i, &end); i++) {
        gather(t, &t->j->k, &x, i, x.lo[i], x.hi[i], &k);
        score_queries(t, &x, &k, i * n_q, (i + 1) * n_q);
    }
}

/* ---- Values of a tile ---- */

#define VALUES(C, last) BY_TYPE(values, v->type, N, C, last, v, c, lo, hi, p, acc, t->width, &x->ahead)

VEC void add_values(const int N, const struct pass *t, struct view *x, const struct tile *v, int32_t q, int32_t lo,
                    int32_t hi)
{
    const float *p = t->score + q * SCORE_STRIDE + x->at;
    float *acc = t->out.acc + q * t->width;
    int32_t c = 0, n = t->j->dim / 16, last = t->j->dim % 16;
    if (VEC_CHAINS == 4 && !has_scales(v->type))
        for (; c + 4 <= n; c += 4)
            VALUES(4, 0);
    for (; c + 2 <= n; c += 2)
        VALUES(2, 0);
    for (; c < n; c++)
        VALUES(1, 0);
    if (last)
        VALUES(1, last);
}

static void add_alone(const struct pass *t, struct view *x, const struct tile *v, int32_t q, int32_t lo, int32_t hi)
{
    add_values(1, t, x, v, q, lo, hi);
}

/* N queries together where all see the keys, each alone before and after. */
VEC void add_group(const int N, const struct pass *t, struct view *x, const struct tile *v, int32_t q)
{
    int32_t lo = 0, hi = KEY_TILE;
    for (int n = 0; n < N; n++) {
        lo = max_i32(lo, x->lo[t->row[q + n]]);
        hi = min_i32(hi, x->hi[t->row[q + n]]);
    }
    hi = max_i32(lo, hi);
    for (int n = 0; n < N; n++) {
        int32_t i = t->row[q + n];
        if (x->lo[i] < lo)
            add_alone(t, x, v, q + n, x->lo[i], min_i32(lo, x->hi[i]));
    }
    if (lo < hi)
        add_values(N, t, x, v, q, lo, hi);
    for (int n = 0; n < N; n++) {
        int32_t i = t->row[q + n];
        if (x->hi[i] > hi)
            add_alone(t, x, v, q + n, max_i32(hi, x->lo[i]), x->hi[i]);
    }
}

static void value_queries(const struct pass *t, struct view *x, const struct tile *v, int32_t q, int32_t q_end)
{
    if (VEC_CHAINS == 4)
        for (; q + 4 <= q_end; q += 4)
            add_group(4, t, x, v, q);
    for (; q + 2 <= q_end; q += 2)
        add_group(2, t, x, v, q);
    if (q < q_end)
        add_group(1, t, x, v, q);
}

static void widen_v(const struct pass *t, struct view *x, struct tile *v)
{
    int32_t dim = t->j->dim, type = wide_type(v->type);
    if (type == Q8_WIDE) {
        widen_k(t, x, v);
        return;
    }
    BY_TYPE(widen_rows, v->type, v, dim, x->first, x->end, t->wide, &x->ahead);
    *v = (struct tile){.type = type,
                       .group = {(char *)t->wide, (char *)(t->wide + 16 * t->width)},
                       .row = sizeof(float) * (size_t)t->width};
}

static void value_tile(const struct pass *t, int32_t at)
{
    int32_t n_q = t->j->n_q, end;
    struct view x;
    struct tile v;
    look_at(t, at, &x);
    look_ahead(t, &x, 1);
    if (x.shared)
        shared_tile(t, &t->j->v, &x, &v);
    if (worth_a_copy(t, &x, t->j->v.type))
        widen_v(t, &x, &v);
    for (int32_t i = 0; next_rows(x.shared, &i, &end); i = end)
        value_queries(t, &x, &v, i * n_q, end * n_q);
    for (int32_t i = 0; next_rows(x.own, &i, &end); i++) {
        gather(t, &t->j->v, &x, i, x.lo[i], x.hi[i], &v);
        value_queries(t, &x, &v, i * n_q, (i + 1) * n_q);
    }
}

/* ---- Segments ---- */

/* Returns the end of what is seen of it. */
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
        if (t->lo[row] >= t->hi[row])
            continue;
        if (t->j->softcap > 0)
            cap_scores(t->score + i * SCORE_STRIDE, t->lo[row], t->hi[row], t->j->scale, t->j->softcap);
        weigh(t->score + i * SCORE_STRIDE, t->lo[row], t->hi[row], t->j->softcap > 0 ? log2_e : t->j->scale * log2_e,
              &t->out.top[i], &t->out.sum[i]);
    }
    memset(t->out.acc, 0, sizeof *out * (size_t)(n_query * t->width));
    for (int32_t at = t->first; at < end; at += KEY_TILE)
        value_tile(t, at);
}

static void take_query(const struct pass *t, int32_t row, int32_t head)
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
    size_t width = (size_t)attend_width(j), n_query = attend_queries(j->n_q);
    t->j = j;
    t->width = (int32_t)width;
    t->block_bits = __builtin_ctz((uint32_t)j->block_len);
    t->end = 0;
    t->wide = j->scratch;
    t->gathered = (char *)(t->wide + KEY_TILE * (width + width / DIMS));
    t->q = t->wide + 2 * KEY_TILE * (width + width / DIMS);
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
