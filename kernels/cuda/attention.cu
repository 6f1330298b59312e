/* One block goes through an item's keys tile by tile (FlashAttention-2, arXiv:2307.08691): each warp has 16 queries,
 * all warps share the tile, the next tile comes in meanwhile. Both products run on the tensor cores in bf16 with f32
 * sums; softmax is in f32, base 2. */
#include "attention_tiles.cuh"

/* ---- What a lane knows: two rows of its warp's 16 queries, lane / 4 and 8 further ---- */

struct view { /* of a query: which keys it sees */
    uint64_t vis;
    int32_t n_prefix, first, tree0, end; /* end: it sees nothing from here on */
};

DEV bool sees(const struct view *w, int32_t key)
{
    if (key < w->n_prefix)
        return key >= w->first;
    int32_t b = key - w->tree0;
    if (b < 0 || b > 63 || !(w->vis >> b & 1))
        return false;
    return w->tree0 + dev_popc(w->vis & (((uint64_t)1 << b) - 1)) >= w->first; /* windows compare positions */
}

DEV struct view view_of(const struct attn_row *row, bool gathered)
{
    int32_t n_seen = row->tree0 + dev_popc(row->vis);
    if (gathered)
        return {0, n_seen, row->first_pos, row->tree0, n_seen};
    return {row->vis, row->n_prefix, row->first_pos, row->tree0, row->vis ? row->tree0 + 64 : row->n_prefix};
}

template <int DIM> struct lane_state { /* softmax so far, and sums in the fragments' layout */
    float o[DIM / 8][4];
    float top[2], sum[2]; /* of rows lane / 4 and + 8; sum: of this lane's keys alone */
};

template <int DIM> DEV void state_clear(struct lane_state<DIM> *st)
{
    UNROLL
    for (int j = 0; j < DIM / 8; j++)
        for (int r = 0; r < 4; r++)
            st->o[j][r] = 0;
    st->top[0] = st->top[1] = -INFINITY;
    st->sum[0] = st->sum[1] = 0;
}

/* score = q . k for the warp's 16 queries and the tile's keys. */
template <int DIM>
DEV void tile_scores(float score[][4], const struct bf16 (*q)[attn_dims<DIM>::STRIDE],
                     const struct bf16 (*k)[attn_dims<DIM>::STRIDE], int lane)
{
    enum { TILE = attn_dims<DIM>::TILE };
    UNROLL
    for (int j = 0; j < TILE / 8; j++)
        for (int r = 0; r < 4; r++)
            score[j][r] = 0;
    UNROLL
    for (int i = 0; i < DIM; i += 16) {
        uint32_t a[4], b[4];
        dev_ldmatrix(a, &q[lane % 16][i + lane / 16 * 8]);
        UNROLL
        for (int j = 0; j < TILE / 8; j += 2) {
            dev_ldmatrix(b, &k[j * 8 + lane / 16 * 8 + lane % 8][i + lane / 8 % 2 * 8]);
            dev_mma_bf16(score[j], a, b);
            dev_mma_bf16(score[j + 1], a, b + 2);
        }
    }
}

/* o += p v. */
template <int DIM>
DEV void tile_values(struct lane_state<DIM> *st, const float p[][4], const struct bf16 (*v)[attn_dims<DIM>::STRIDE],
                     int lane)
{
    UNROLL
    for (int j = 0; j < attn_dims<DIM>::TILE / 8; j += 2) {
        uint32_t a[4] = {dev_pack_bf16(p[j][0], p[j][1]), dev_pack_bf16(p[j][2], p[j][3]),
                         dev_pack_bf16(p[j + 1][0], p[j + 1][1]), dev_pack_bf16(p[j + 1][2], p[j + 1][3])};
        UNROLL
        for (int i = 0; i < DIM; i += 16) {
            uint32_t b[4];
            dev_ldmatrix_trans(b, &v[j * 8 + lane % 16][i + lane / 16 * 8]);
            dev_mma_bf16(st->o[i / 8], a, b);
            dev_mma_bf16(st->o[i / 8 + 1], a, b + 2);
        }
    }
}

/* Scores are in base 2, and so is what caps them. */
constexpr float LOG2_E = 1.44269504f;

/* A tile's keys join the softmax. */
template <int DIM, int TYPE>
DEV void tile_join(struct lane_state<DIM> *st, const struct attn_smem<DIM, TYPE> *s, int stage, int opened, int warp,
                   int32_t key0, const struct view w[2], bool masked, float scale, float soft_cap, int lane)
{
    enum { TILE = attn_dims<DIM>::TILE };
    float p[TILE / 8][4];
    tile_scores<DIM>(p, s->q + warp * ATTN_WARP_QUERIES, s->k[opened], lane);

    float top[2] = {st->top[0], st->top[1]};
    UNROLL
    for (int j = 0; j < TILE / 8; j++)
        for (int r = 0; r < 4; r++) {
            int i = j * 8 + lane % 4 * 2 + r % 2;
            p[j][r] = dev_mul(p[j][r], scale * k_scale_of(s, stage, i));
            if (soft_cap > 0)
                p[j][r] = dev_soft_cap(p[j][r], soft_cap);
            if (masked && !sees(&w[r / 2], key0 + i))
                p[j][r] = -INFINITY;
            top[r / 2] = fmaxf(top[r / 2], p[j][r]);
        }
    UNROLL
    for (int h = 0; h < 2; h++) {
        top[h] = fmaxf(top[h], dev_shfl_xor(top[h], 1));
        top[h] = fmaxf(top[h], dev_shfl_xor(top[h], 2));
        float shrink = top[h] > -INFINITY ? dev_exp2(st->top[h] - top[h]) : 1;
        st->top[h] = top[h];
        st->sum[h] = dev_mul(st->sum[h], shrink);
        UNROLL
        for (int i = 0; i < DIM / 8; i++) {
            st->o[i][2 * h] *= shrink;
            st->o[i][2 * h + 1] *= shrink;
        }
    }
    UNROLL
    for (int j = 0; j < TILE / 8; j++)
        for (int r = 0; r < 4; r++) { /* NaN goes through */
            p[j][r] = p[j][r] == -INFINITY ? 0 : dev_exp2(p[j][r] - top[r / 2]);
            st->sum[r / 2] += p[j][r];
            p[j][r] *= v_scale_of(s, stage, j * 8 + lane % 4 * 2 + r % 2);
        }
    tile_values<DIM>(st, p, s->v[opened], lane);
}

/* ---- Folding: (top, sum, o) of earlier splits with those of the next. Written out, so that the compiler cannot fuse
 * it in one way here and in another there. ---- */

struct fold {
    float top, old_weight, new_weight;
};

DEV struct fold fold_of(float old_top, float new_top)
{
    float top = fmaxf(old_top, new_top);
    return {top, dev_exp2(old_top - top), dev_exp2(new_top - top)};
}

DEV float fold_value(const struct fold *f, float old_value, float new_value)
{
    return fmaf(new_value, f->new_weight, old_value * f->old_weight);
}

/* A part: [head_dim] sums, then top and sum. */
DEV float *part_at(const struct attn_args *a, int32_t part, int32_t head, int dim)
{
    return a->scratch + ((int64_t)part * a->n_head + head) * (dim + 2);
}

/* ---- Items ---- */

struct query { /* one of a lane's two: where its results go */
    int32_t row, head, part, n_part;
    bool exists; /* the last warp of an item may have fewer than 16 */
    bool stored; /* earlier splits of this item are in its part, with this top and sum: */
    float top, sum;
};

/* A split, or the item, ends: its results go where they belong. */
template <int DIM>
DEV void query_close(const struct attn_args *a, struct lane_state<DIM> *st, struct query *q, int h, bool item_ends,
                     int lane)
{
    float sum = st->sum[h] + dev_shfl_xor(st->sum[h], 1);
    sum += dev_shfl_xor(sum, 2);
    if (!q->exists || (sum == 0 && !(item_ends && q->stored)))
        return; /* it saw nothing */
    float *part = q->part >= 0 ? part_at(a, q->part, q->head, DIM) : nullptr, top = st->top[h];
    int at = lane % 4 * 2;
    if (q->stored) {
        struct fold f = fold_of(q->top, top);
        top = f.top;
        sum = fold_value(&f, q->sum, sum);
        UNROLL
        for (int j = 0; j < DIM / 8; j++)
            for (int r = 0; r < 2; r++)
                st->o[j][2 * h + r] = fold_value(&f, part[j * 8 + at + r], st->o[j][2 * h + r]);
    }
    if (item_ends && q->n_part == 1) {
        struct bf16 *out = a->out + ((int64_t)q->row * a->n_head + q->head) * DIM + at;
        float down = 1 / sum;
        UNROLL
        for (int j = 0; j < DIM / 8; j++)
            *(uint32_t *)(out + j * 8) = dev_pack_bf16(st->o[j][2 * h] * down, st->o[j][2 * h + 1] * down);
        return;
    }
    UNROLL
    for (int j = 0; j < DIM / 8; j++)
        for (int r = 0; r < 2; r++)
            part[j * 8 + at + r] = st->o[j][2 * h + r];
    if (lane % 4 == 0) { /* for k_attn_fold; the query's lanes each remember them */
        part[DIM] = top;
        part[DIM + 1] = sum;
    }
    q->stored = true;
    q->top = top;
    q->sum = sum;
}

template <int DIM, int TYPE>
DEV void queries_request(const struct attn_args *a, const struct attn_item *it, struct attn_smem<DIM, TYPE> *s,
                         int head_kv)
{
    enum { CHUNKS = attn_dims<DIM>::CHUNKS };
    int group = a->n_head / a->kv.n_head_kv, n_query = blockDim.x / DEV_WARP * ATTN_WARP_QUERIES;
    for (int i = threadIdx.x; i < n_query * CHUNKS; i += blockDim.x) {
        int32_t q = it->q0 + i / CHUNKS;
        bool there = i / CHUNKS < it->n_q;
        int64_t at = there ? ((int64_t)(it->row0 + q / group) * a->n_head + head_kv * group + q % group) * DIM : 0;
        dev_copy16(&s->q[i / CHUNKS][i % CHUNKS * 8], a->q + at + i % CHUNKS * 8, there);
    }
}

DEV struct query query_at(const struct attn_args *a, const struct attn_item *it, int head_kv, int i)
{
    int group = a->n_head / a->kv.n_head_kv, q = it->q0 + (i < it->n_q ? i : it->n_q - 1);
    int32_t row = it->row0 + q / group;
    const struct attn_row *w = &a->row[row];
    int32_t ordinal = it->split > w->split0 ? it->split - w->split0 : 0;
    return {row, head_kv * group + q % group, w->part0 < 0 ? -1 : w->part0 + ordinal, w->n_part, i < it->n_q, false, 0,
            0};
}

DEV int warp_least(int v)
{
    for (int m = DEV_WARP / 2; m > 0; m >>= 1) {
        int other = dev_shfl_xor(v, m);
        v = other < v ? other : v;
    }
    return v;
}

template <int DIM, int TYPE>
DEV void item_run(const struct attn_args &a, struct attn_item it, struct attn_smem<DIM, TYPE> *s)
{
    enum { TILE = attn_dims<DIM>::TILE };
    int lane = threadIdx.x % DEV_WARP, warp = threadIdx.x / DEV_WARP, head_kv = blockIdx.y;
    int first_query = warp * ATTN_WARP_QUERIES + lane / 4;
    struct query q[2] = {query_at(&a, &it, head_kv, first_query), query_at(&a, &it, head_kv, first_query + 8)};
    struct view w[2] = {view_of(&a.row[q[0].row], it.gathered), view_of(&a.row[q[1].row], it.gathered)};
    struct key_source src = {a.bt + it.bt_off, a.kv.block_shift, it.key1, INT32_MAX, 0};
    if (it.gathered) {
        src.tree0 = w[0].tree0;
        src.vis = a.row[q[0].row].vis;
    }
    /* Keys that all of the warp's queries see, and where the last of them ends. */
    int32_t all0 = -warp_least(-(w[0].first > w[1].first ? w[0].first : w[1].first));
    int32_t all1 = warp_least(w[0].n_prefix < w[1].n_prefix ? w[0].n_prefix : w[1].n_prefix);
    int32_t end = warp * ATTN_WARP_QUERIES < it.n_q ? -warp_least(-(w[0].end > w[1].end ? w[0].end : w[1].end)) : 0;

    struct lane_state<DIM> st;
    state_clear(&st);
    int32_t split_len = attn_split_len(it.key0 / ATTN_SPLIT_MIN * ATTN_SPLIT_MIN);
    int32_t split_end = it.key0 / split_len * split_len + split_len;
    queries_request(&a, &it, s, head_kv);
    tile_request(s, &src, &a.kv, head_kv, it.key0, 0);
    dev_copy_commit();
    for (int32_t key = it.key0, stage = 0; key < it.key1; key += TILE, stage ^= 1) {
        if (key + TILE < it.key1)
            tile_request(s, &src, &a.kv, head_kv, key + TILE, stage ^ 1);
        dev_copy_commit();
        dev_copy_wait<1>();
        int opened = tile_open(s, stage);
        dev_block_sync();
        if (key < end) {
            bool masked = key < all0 || key + TILE > all1;
            tile_join(&st, s, stage, opened, warp, key, w, masked, a.scale * LOG2_E, a.soft_cap * LOG2_E, lane);
        }
        bool item_ends = key + TILE >= it.key1;
        if (item_ends || key + TILE == split_end) {
            query_close(&a, &st, &q[0], 0, item_ends, lane);
            query_close(&a, &st, &q[1], 1, item_ends, lane);
            state_clear(&st);
            split_end += attn_split_len(split_end);
        }
        dev_block_sync(); /* the stage, and after the last tile the queries, are free */
    }
    dev_copy_wait<0>();
}

template <int DIM, int TYPE>
KERNEL __launch_bounds__(ATTN_MAX_WARPS *DEV_WARP) k_attend(struct attn_args a, bool wide)
{
    typedef struct attn_smem<DIM, TYPE> smem;
    SMEM_DYN(smem, s);
    const struct attn_item *item = a.item + a.count->item0;
    int32_t end = wide ? a.count->n_item : a.count->n_narrow;
    for (int32_t i = (wide ? a.count->n_narrow : 0) + blockIdx.x; i < end; i += gridDim.x)
        item_run<DIM, TYPE>(a, item[i], s);
}

/* ---- Rows with several parts: one warp a head ---- */

KERNEL __launch_bounds__(ATTN_MAX_WARPS *DEV_WARP) k_attn_fold(struct attn_args a)
{
    int lane = threadIdx.x % DEV_WARP, dim = a.kv.head_dim, head = blockIdx.y * ATTN_MAX_WARPS + threadIdx.x / DEV_WARP;
    if (head >= a.n_head || (int32_t)blockIdx.x >= a.count->n_fold)
        return;
    int32_t r = a.fold[blockIdx.x];
    struct attn_row row = a.row[r];
    for (int i = lane * 2; i < dim; i += DEV_WARP * 2) {
        float top = -INFINITY, sum = 0, o[2] = {0, 0};
        for (int32_t p = row.part0; p < row.part0 + row.n_part; p++) {
            const float *part = part_at(&a, p, head, dim);
            struct fold f = fold_of(top, part[dim]);
            top = f.top;
            sum = fold_value(&f, sum, part[dim + 1]);
            o[0] = fold_value(&f, o[0], part[i]);
            o[1] = fold_value(&f, o[1], part[i + 1]);
        }
        float down = 1 / sum;
        *(uint32_t *)(a.out + ((int64_t)r * a.n_head + head) * dim + i) = dev_pack_bf16(o[0] * down, o[1] * down);
    }
}

/* ---- Launches ---- */

template <int DIM, int TYPE> static size_t smem_bytes(int32_t n_warp)
{
    typedef struct attn_smem<DIM, TYPE> smem;
    size_t row = sizeof(((smem *)nullptr)->q[0]);
    return sizeof(smem) - row * (ATTN_ITEM_QUERIES - ATTN_WARP_QUERIES * n_warp);
}

template <int DIM, int TYPE> static void items_run(const struct attn_args *a, struct CUstream_st *stream)
{
    int32_t n_head = a->kv.n_head_kv;
    if (a->grid.narrow)
        LAUNCH((k_attend<DIM, TYPE>), dim3(a->grid.narrow, n_head), DEV_WARP, (smem_bytes<DIM, TYPE>(1)), stream, *a,
               false);
    if (a->grid.wide)
        LAUNCH((k_attend<DIM, TYPE>), dim3(a->grid.wide, n_head), ATTN_MAX_WARPS * DEV_WARP,
               (smem_bytes<DIM, TYPE>(ATTN_MAX_WARPS)), stream, *a, true);
}

/* Everything that is known of a head size and a type. */
template <int DIM>
static size_t dim_run(const struct attn_args *a, int32_t type, int32_t n_warp, struct CUstream_st *stream)
{
    if (a && type == KV_FP8)
        items_run<DIM, KV_FP8>(a, stream);
    else if (a)
        items_run<DIM, KV_BF16>(a, stream);
    return type == KV_FP8 ? smem_bytes<DIM, KV_FP8>(n_warp) : smem_bytes<DIM, KV_BF16>(n_warp);
}

static size_t dispatch(int32_t dim, const struct attn_args *a, int32_t type, int32_t n_warp, struct CUstream_st *stream)
{
    switch (dim) {
    case 64:
        return dim_run<64>(a, type, n_warp, stream);
    case 80:
        return dim_run<80>(a, type, n_warp, stream);
    case 96:
        return dim_run<96>(a, type, n_warp, stream);
    case 128:
        return dim_run<128>(a, type, n_warp, stream);
    case 256:
        return dim_run<256>(a, type, n_warp, stream);
    }
    return 0;
}

size_t attn_smem_bytes(int32_t head_dim, int32_t kv_type, int32_t n_warp)
{
    return dispatch(head_dim, nullptr, kv_type, n_warp, nullptr);
}

int attn_run(const struct attn_args *a, struct CUstream_st *stream)
{
    if (!dispatch(a->kv.head_dim, a, a->kv.type, 1, stream))
        return -ERR_INVALID;
    if (a->grid.fold)
        LAUNCH(k_attn_fold, dim3(a->grid.fold, (a->n_head + ATTN_MAX_WARPS - 1) / ATTN_MAX_WARPS),
               ATTN_MAX_WARPS * DEV_WARP, 0, stream, *a);
    return 0;
}
