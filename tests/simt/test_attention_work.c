/* The work list of random plans: every key that a row sees is in exactly one of its items, and parts fit together. */
#include <string.h>

#include "attention_case.h"
#include "values.h"
#include "visible.h"
#include "../unit/suite.h"

enum { N_ROW = 200, BLOCK_LEN = 16, N_BLOCK = 100000, MAX_KEYS = 6000 };

static struct step_plan p;
static struct attn_work w;

static void make_plan(uint64_t seed)
{
    int32_t next_block = 0, n_span = value_int(seed, 0, 1, 5);
    plan_reset(&p);
    for (int32_t i = 0; i < n_span; i++) {
        uint64_t at = (uint64_t)(i * 10);
        int32_t far = value_int(seed, at + 1, 0, 3) ? 700 : 5500, kind = value_int(seed, at + 2, 0, 4);
        struct span s = {
            .ctx_len = value_int(seed, at + 3, 0, far), .group = -1, .law = -1, .layer0 = i == 3, .layer1 = 2};
        int32_t n_held = 0, n_tree = 0;
        if (i % 2) /* a tree that crosses into the next split */
            s.ctx_len = s.ctx_len / 256 * 256 + 255 - value_int(seed, at + 7, 0, 12);
        s.n_chain = kind == 0 ? value_int(seed, at + 4, 1, 40) : kind < 4;
        if (kind > 1)
            n_tree = value_int(seed, at + 5, 1, 30);
        if (kind == 4)
            n_held = value_int(seed, at + 6, 1, 30);
        s.attn = kind == 1 && i % 2 ? ATTN_FULL : ATTN_CAUSAL;
        attn_plan_span(&p, BLOCK_LEN, N_BLOCK, &next_block, seed, &s, n_held, n_tree);
    }
}

static int32_t ordinal_of(const struct attn_item *it, const struct attn_row *row)
{
    return it->split > row->split0 ? it->split - row->split0 : 0;
}

/* Where a key of an item stands in the sequence, -1 for none. */
static int32_t slot_of(const struct attn_item *it, const struct attn_row *row, int32_t key)
{
    if (!it->gathered || key < row->tree0)
        return key;
    uint64_t bits = row->vis;
    for (int32_t k = key - row->tree0; k > 0 && bits; k--)
        bits &= bits - 1;
    return bits ? row->tree0 + __builtin_ctzll(bits) : -1;
}

static void check_query(const struct attn_shape *shape, int32_t r, int32_t head, const struct visible *vis)
{
    static unsigned char times[MAX_KEYS], part[64];
    int32_t group = shape->n_head / shape->n_head_kv;
    const struct attn_row *row = &w.row[r];
    memset(times, 0, sizeof times);
    memset(part, 0, sizeof part);
    for (const struct attn_item *it = w.item; it < w.item + w.n_item; it++) {
        int32_t q = (r - it->row0) * group + head, n_seen = 0;
        if (r < it->row0 || q < it->q0 || q >= it->q0 + it->n_q)
            continue;
        for (int32_t key = it->key0; key < it->key1; key++) {
            int32_t slot = slot_of(it, row, key);
            ck_assert_int_ge(slot, 0);
            times[slot]++;
            for (int32_t j = 0; j < vis->n_prefix + vis->n_tail && !n_seen; j++)
                n_seen += visible_slot(vis, j) == slot;
        }
        if (n_seen)
            part[ordinal_of(it, row)]++;
        if (n_seen && row->n_part == 1 && it->key0 / ATTN_SPLIT_MIN != (it->key1 - 1) / ATTN_SPLIT_MIN &&
            it->key1 >
                it->key0 / ATTN_SPLIT_MIN * ATTN_SPLIT_MIN + attn_split_len(it->key0 / ATTN_SPLIT_MIN * ATTN_SPLIT_MIN))
            ck_assert_int_ge(row->part0, 0); /* it folds, and needs a place to */
    }
    for (int32_t j = 0; j < vis->n_prefix + vis->n_tail; j++)
        ck_assert_msg(times[visible_slot(vis, j)] == 1, "row %d head %d: slot %d is in %d items", r, head,
                      visible_slot(vis, j), times[visible_slot(vis, j)]);
    for (int32_t i = 0; i < row->n_part; i++)
        ck_assert_msg(part[i] == 1, "row %d head %d: part %d of %d comes from %d items", r, head, i, row->n_part,
                      part[i]);
    ck_assert(!part[row->n_part]);
}

static void check_parts(void)
{
    static unsigned char taken[100000];
    memset(taken, 0, (size_t)w.n_part);
    int32_t n_fold = 0;
    for (int32_t i = 0; i < p.n.n_span; i++)
        for (int32_t r = p.span[i].row0; p.span[i].layer0 == 0 && r < p.span[i].row0 + p.span[i].n_row; r++) {
            ck_assert(w.row[r].n_part == 1 || w.row[r].part0 >= 0);
            n_fold += w.row[r].n_part > 1;
            for (int32_t k = 0; w.row[r].part0 >= 0 && k < w.row[r].n_part; k++) {
                ck_assert_int_lt(w.row[r].part0 + k, w.n_part);
                ck_assert(!taken[w.row[r].part0 + k]++);
            }
        }
    ck_assert_int_eq(n_fold, w.n_fold);
    for (int32_t i = 0; i < w.n_item; i++) {
        ck_assert((w.item[i].n_q <= ATTN_WARP_QUERIES) == (i < w.n_narrow));
        ck_assert(w.item[i].n_q >= 1 && w.item[i].n_q <= ATTN_ITEM_QUERIES && w.item[i].key0 % ATTN_KEY_ALIGN == 0);
    }
}

START_TEST(test_random_plans)
{
    static const int32_t heads[][2] = {{1, 1}, {4, 1}, {7, 1}, {71, 1}, {16, 8}};
    static const int32_t windows[] = {0, 0, 1, 40, 1000};
    for (uint64_t seed = 0; seed < (uint64_t)suite_all_or(300, 60); seed++) {
        make_plan(seed);
        int32_t h = value_int(seed, 900, 0, 4);
        struct attn_shape shape = {.n_head = heads[h][0],
                                   .n_head_kv = heads[h][1],
                                   .head_dim = 64,
                                   .sliding_window = windows[value_int(seed, 901, 0, 4)]};
        w.cap_part = attn_work_min_part(&p.n) + value_int(seed, 902, 0, 2) * 300;
        ck_assert_int_le(attn_work_max_item(&p.n, &shape, w.cap_part), w.cap_item);
        attn_work_make(&p, 0, &shape, seed % 3 ? 10000 : 0, seed / 3 % 2, &w);
        ck_assert_int_le(w.n_item, attn_work_max_item(&p.n, &shape, w.cap_part));
        ck_assert_int_le(w.n_part, w.cap_part);
        check_parts();
        for (int32_t i = 0; i < p.n.n_span; i++)
            for (int32_t r = p.span[i].row0; p.span[i].layer0 == 0 && r < p.span[i].row0 + p.span[i].n_row; r += 3) {
                struct visible vis;
                visible_of(&p, &p.span[i], r, shape.sliding_window, &vis);
                int32_t group = shape.n_head / shape.n_head_kv;
                check_query(&shape, r, value_int(seed, (uint64_t)r, 0, group - 1), &vis);
            }
    }
}
END_TEST

int main(void)
{
    struct plan_limits cap = {
        .n_span = 8, .n_row = N_ROW, .n_held = 200, .n_bt = 8 * MAX_KEYS / BLOCK_LEN, .n_vocab = 10};
    if (plan_create(&p, &cap, NULL))
        return 1;
    w.cap_item = 100000;
    w.row = malloc(sizeof *w.row * N_ROW);
    w.fold = malloc(sizeof *w.fold * N_ROW);
    w.item = malloc(sizeof *w.item * (size_t)w.cap_item);
    TCase *tc = tcase_create("attention work");
    tcase_add_test(tc, test_random_plans);
    int rc = suite_run(tc);
    plan_free(&p);
    free(w.row), free(w.fold), free(w.item);
    return rc;
}
