#include "attention.h"

#include <stdbool.h>

struct maker { /* owner: attn_work_make */
    const struct step_plan *p;
    const struct attn_shape *shape;
    struct attn_work *w;
    int32_t group;
    bool gathers;      /* tree rows get items of their own at the end */
    bool cuts;         /* cut at splits where parts allow */
    int32_t rows_left; /* rows whose parts are not handed out yet */
};

/* Rows of a span that share their items. */
struct segment {
    const struct span *s;
    int32_t row0, n_row;
    bool is_tree; /* gathered from the split of tree0 on */
    bool folds;   /* its shared items go through several splits */
};

/* ---- Positions and splits ---- */

static int32_t split_begin(int32_t at)
{
    int32_t len = attn_split_len(at / ATTN_SPLIT_MIN * ATTN_SPLIT_MIN);
    return at / len * len;
}

/* How many splits begin before the one of `at`. */
static int32_t split_index(int32_t at)
{
    int32_t begin = split_begin(at), len = attn_split_len(begin), index = begin / len;
    for (; len > ATTN_SPLIT_MIN; len /= 2)
        index += 16;
    return index;
}

static int32_t last_bit(uint64_t bits)
{
    return 63 - __builtin_clzll(bits);
}

/* ---- What a row sees ---- */

static struct attn_row row_view(const struct maker *mk, const struct span *s, int32_t r)
{
    int32_t i = r - s->row0, pos = mk->p->pos[r], window = mk->shape->sliding_window;
    struct attn_row row = {.vis = mk->p->vis[r], .tree0 = s->ctx_len + s->n_chain, .part0 = -1, .n_part = 1};
    bool sees_chain = s->attn == ATTN_FULL || i >= s->n_chain;
    row.n_prefix = sees_chain ? row.tree0 : s->ctx_len + i + 1;
    row.first_pos = window > 0 && pos >= window ? pos - window + 1 : 0;
    return row;
}

/* First and last key that it sees: sequence slots, or positions where they are gathered. */
static int32_t first_key(const struct attn_row *row, bool gathered)
{
    if (gathered || row->first_pos < row->n_prefix)
        return row->first_pos;
    uint64_t bits = row->vis;
    for (int32_t hidden = row->first_pos - row->tree0; hidden > 0 && (bits & (bits - 1)); hidden--)
        bits &= bits - 1;
    return row->tree0 + __builtin_ctzll(bits);
}

static int32_t last_key(const struct attn_row *row, bool gathered)
{
    if (!row->vis)
        return row->n_prefix - 1;
    return row->tree0 + (gathered ? __builtin_popcountll(row->vis) - 1 : last_bit(row->vis));
}

/* ---- Parts ---- */

/* Gives a row room for what its items leave behind: n_shared of its splits belong to shared items, n_own to gathered
 * ones. Shared items that are not cut fold into one part, and need it even for a row with one split, if others go
 * further. */
static void row_parts(struct maker *mk, struct attn_row *row, int32_t r, int32_t split0, int32_t n_shared,
                      int32_t n_own, bool folds)
{
    row->n_part = (folds ? n_shared > 0 : n_shared) + n_own;
    row->split0 = folds && n_shared > 0 ? split0 + n_shared - 1 : split0;
    if (row->n_part == 1 && !folds)
        return;
    row->part0 = mk->w->n_part;
    mk->w->n_part += row->n_part;
    if (row->n_part > 1)
        mk->w->fold[mk->w->n_fold++] = r;
}

static bool parts_fit(const struct maker *mk, int64_t n)
{
    return mk->w->n_part + n + (int64_t)ATTN_ROW_PARTS * mk->rows_left <= mk->w->cap_part;
}

/* ---- Items ---- */

static void add_item(struct maker *mk, const struct segment *g, struct attn_item item)
{
    item.split = split_index(item.key0);
    item.bt_off = g->s->bt_off;
    mk->w->item[mk->w->n_item++] = item;
}

/* Items for queries q0 .. q0 + n_q - 1 of a segment over keys key0 .. key1 - 1, one or one a split. */
static void add_range(struct maker *mk, const struct segment *g, struct attn_item item, int32_t key0, int32_t key1,
                      bool cut)
{
    for (int32_t at = key0 / ATTN_KEY_ALIGN * ATTN_KEY_ALIGN; at < key1;) {
        int32_t begin = split_begin(at), end = cut ? begin + attn_split_len(begin) : key1;
        item.key0 = at;
        item.key1 = end < key1 ? end : key1;
        add_item(mk, g, item);
        at = end;
    }
}

static int32_t shared_end(const struct maker *mk, const struct segment *g, int32_t r)
{
    const struct attn_row *row = &mk->w->row[r];
    return g->is_tree ? split_begin(row->tree0) : last_key(row, false) + 1;
}

/* The keys that queries of rows a .. b share. */
static void add_shared(struct maker *mk, const struct segment *g, int32_t q0, int32_t n_q, bool cut)
{
    int32_t a = g->row0 + q0 / mk->group, b = g->row0 + (q0 + n_q - 1) / mk->group, key0 = INT32_MAX, key1 = 0;
    for (int32_t r = a; r <= b; r++) {
        int32_t first = first_key(&mk->w->row[r], g->is_tree), end = shared_end(mk, g, r);
        if (first >= end)
            continue;
        key0 = first < key0 ? first : key0;
        key1 = end > key1 ? end : key1;
    }
    if (key0 < key1)
        add_range(mk, g, (struct attn_item){.row0 = g->row0, .q0 = q0, .n_q = n_q}, key0, key1, cut);
}

/* A tree row's own keys, in order of position. */
static void add_gathered(struct maker *mk, const struct segment *g, int32_t r)
{
    const struct attn_row *row = &mk->w->row[r];
    int32_t key0 = first_key(row, true), from = split_begin(row->tree0);
    for (int32_t q = 0; q < mk->group; q += ATTN_ITEM_QUERIES) {
        int32_t n_q = mk->group - q < ATTN_ITEM_QUERIES ? mk->group - q : ATTN_ITEM_QUERIES;
        add_range(mk, g, (struct attn_item){.row0 = r, .q0 = q, .n_q = n_q, .gathered = 1}, key0 > from ? key0 : from,
                  last_key(row, true) + 1, true);
    }
}

/* ---- Segments and spans ---- */

/* First split that a row's own items cover; one past the last split where all are shared. */
static int32_t own_split(const struct attn_row *row, const struct segment *g)
{
    int32_t first = split_index(first_key(row, g->is_tree)), tree = split_index(row->tree0);
    if (!g->is_tree)
        return split_index(last_key(row, false)) + 1;
    return tree > first ? tree : first;
}

/* Looks at the rows of a segment, decides whether it is cut, and hands out parts. */
static void segment_rows(struct maker *mk, struct segment *g)
{
    struct attn_row *row = mk->w->row;
    int32_t split0 = INT32_MAX, split1 = 0;
    int64_t n_cut = 0;
    for (int32_t r = g->row0; r < g->row0 + g->n_row; r++) {
        row[r] = row_view(mk, g->s, r);
        int32_t first = split_index(first_key(&row[r], g->is_tree)), own = own_split(&row[r], g);
        n_cut += split_index(last_key(&row[r], g->is_tree)) - first + 1;
        split0 = first < split0 ? first : split0;
        split1 = own > split1 ? own : split1;
    }
    mk->rows_left -= g->n_row;
    g->folds = split1 - split0 > 1 && !(mk->cuts && parts_fit(mk, n_cut));
    for (int32_t r = g->row0; r < g->row0 + g->n_row; r++) {
        int32_t first = split_index(first_key(&row[r], g->is_tree)), own = own_split(&row[r], g);
        int32_t end = split_index(last_key(&row[r], g->is_tree)) + 1;
        row_parts(mk, &row[r], r, first, own - first, end - own, g->folds);
    }
}

static void segment_items(struct maker *mk, const struct segment *g)
{
    int32_t n_query = g->n_row * mk->group, step = n_query <= ATTN_WARP_QUERIES ? n_query : ATTN_ITEM_QUERIES;
    for (int32_t q = 0; q < n_query; q += step)
        add_shared(mk, g, q, n_query - q < step ? n_query - q : step, !g->folds);
    for (int32_t r = g->row0; g->is_tree && r < g->row0 + g->n_row; r++)
        add_gathered(mk, g, r);
}

/* Items of one warp before those of four, each launched together. */
static void sort_narrow_first(struct attn_work *w)
{
    int32_t at = 0;
    for (int32_t i = 0; i < w->n_item; i++)
        if (w->item[i].n_q <= ATTN_WARP_QUERIES) {
            struct attn_item t = w->item[i];
            w->item[i] = w->item[at];
            w->item[at++] = t;
        }
    w->n_narrow = at;
}

/* The segments of a span that runs `layer`: none, one, or chain and tree apart. */
static int span_segments(const struct maker *mk, const struct span *s, int32_t layer, struct segment out[2])
{
    int32_t n_chain = mk->gathers ? s->n_chain : s->n_row, n = 0;
    if (layer < s->layer0 || layer >= s->layer1)
        return 0;
    if (n_chain)
        out[n++] = (struct segment){.s = s, .row0 = s->row0, .n_row = n_chain};
    if (s->n_row > n_chain)
        out[n++] = (struct segment){.s = s, .row0 = s->row0 + n_chain, .n_row = s->n_row - n_chain, .is_tree = true};
    return n;
}

void attn_work_make(const struct step_plan *p, int32_t layer, const struct attn_shape *shape, int32_t n_block,
                    int deterministic, struct attn_work *w)
{
    struct maker mk = {.p = p, .shape = shape, .w = w, .group = shape->n_head / shape->n_head_kv};
    struct segment g[2];
    int64_t n_whole = 0;
    mk.gathers = deterministic;
    w->n_item = w->n_narrow = w->n_fold = w->n_part = 0;
    for (int32_t i = 0; i < p->n.n_span; i++)
        for (int j = 0, n = span_segments(&mk, &p->span[i], layer, g); j < n; j++) {
            mk.rows_left += g[j].n_row;
            n_whole += (g[j].n_row * mk.group + ATTN_ITEM_QUERIES - 1) / ATTN_ITEM_QUERIES;
        }
    mk.cuts = n_whole * shape->n_head_kv < n_block;
    for (int32_t i = 0; i < p->n.n_span; i++)
        for (int j = 0, n = span_segments(&mk, &p->span[i], layer, g); j < n; j++) {
            segment_rows(&mk, &g[j]);
            segment_items(&mk, &g[j]);
        }
    sort_narrow_first(w);
}

int32_t attn_work_min_part(const struct plan_limits *lim)
{
    return ATTN_ROW_PARTS * lim->n_row;
}

int32_t attn_work_max_item(const struct plan_limits *lim, const struct attn_shape *shape, int32_t cap_part)
{
    /* A cut item has a part, which at most `row_items` items share; the others are full, or the last of a segment, or
     * gathered: two splits a row. */
    int32_t row_items = shape->n_head / shape->n_head_kv / ATTN_ITEM_QUERIES + 2;
    return cap_part * row_items + 2 * lim->n_span + 3 * lim->n_row * row_items;
}

size_t attn_scratch_bytes(const struct attn_shape *shape, int32_t n_part)
{
    return (size_t)n_part * (size_t)shape->n_head * (size_t)(shape->head_dim + 2) * sizeof(float);
}
