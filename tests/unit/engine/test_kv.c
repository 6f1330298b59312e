/* The block pool against a model of it that is too slow to use: sets of references and whole prefixes. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "kv.h"
#include "random_plan.h"
#include "../suite.h"

enum { LEN = 4, N_BLOCK = 24, N_SEQ = 8, MAX_TOK = 40 };
static struct kv_pool pool;

struct model_seq {
    int32_t tok[MAX_TOK], n_tok, block[MAX_TOK / LEN], n_block;
    uint64_t id;
};

/* What every published block holds, as a whole prefix: content must always match what kv_find claims. */
static int32_t prefix_of[N_BLOCK][MAX_TOK], prefix_len[N_BLOCK];

static void match(struct model_seq *s, const char *salt)
{
    s->n_block = 0;
    s->id = kv_root(&pool, salt);
    while ((s->n_block + 1) * LEN <= s->n_tok) {
        int32_t b = kv_find(&pool, s->id, s->tok + s->n_block * LEN);
        if (b < 0)
            return;
        ck_assert_int_eq(prefix_len[b], (s->n_block + 1) * LEN);
        ck_assert_mem_eq(prefix_of[b], s->tok, sizeof(int32_t) * (size_t)prefix_len[b]);
        kv_ref(&pool, b);
        s->block[s->n_block++] = b;
        s->id = pool.block[b].content;
    }
}

static void extend(struct model_seq *s)
{
    while ((s->n_block + 1) * LEN <= s->n_tok) {
        int32_t b = kv_alloc(&pool);
        if (b < 0)
            return;
        bool new_here = kv_find(&pool, s->id, s->tok + s->n_block * LEN) < 0;
        s->block[s->n_block] = b;
        uint64_t id = kv_publish(&pool, b, s->id, s->tok + s->n_block * LEN);
        ck_assert_int_eq(new_here, pool.block[b].content == id);
        if (new_here) {
            prefix_len[b] = (s->n_block + 1) * LEN;
            memcpy(prefix_of[b], s->tok, sizeof(int32_t) * (size_t)prefix_len[b]);
        }
        s->id = id;
        s->n_block++;
    }
}

static void drop(struct model_seq *s)
{
    while (s->n_block > 0)
        kv_unref(&pool, s->block[--s->n_block]);
}

START_TEST(random_sequences_share_what_is_equal_and_leak_nothing)
{
    struct rnd r = rnd_begin("random_sequences_share_what_is_equal_and_leak_nothing", 4);
    static struct model_seq seq[N_SEQ];
    ck_assert(!kv_pool_create(&pool, N_BLOCK, LEN, 77, NULL));
    int n_hit = 0;
    for (int round = 0; round < 20000; round++) {
        struct model_seq *s = &seq[rnd_int(&r, 0, N_SEQ - 1)];
        drop(s);
        s->n_tok = rnd_int(&r, 0, MAX_TOK);
        for (int i = 0; i < s->n_tok; i++)
            s->tok[i] = rnd_int(&r, 0, i % LEN ? 0 : 2); /* few different blocks: many prefixes meet */
        match(s, rnd_int(&r, 0, 9) ? NULL : "salt");
        n_hit += s->n_block > 0;
        extend(s);
        ck_assert(kv_consistent(&pool));
    }
    ck_assert_int_gt(n_hit, 2000);
    for (int i = 0; i < N_SEQ; i++)
        drop(&seq[i]);
    ck_assert_int_eq(kv_available(&pool), N_BLOCK);
    ck_assert(kv_consistent(&pool));
    kv_pool_free(&pool);
}
END_TEST

START_TEST(the_least_recently_used_leaf_goes_first)
{
    struct model_seq a = {.tok = {1, 1, 1, 1, 2, 2, 2, 2}, .n_tok = 8}, b = {.tok = {3, 3, 3, 3}, .n_tok = 4};
    ck_assert(!kv_pool_create(&pool, 3, LEN, 1, NULL));
    match(&a, NULL), extend(&a), match(&b, NULL), extend(&b);
    drop(&a);
    drop(&b);
    ck_assert_int_eq(pool.cached.n, 3);
    int32_t got = kv_alloc(&pool); /* must be the end of a, not its root and not b */
    ck_assert_int_ge(kv_find(&pool, kv_root(&pool, NULL), a.tok), 0);
    ck_assert_int_ge(kv_find(&pool, kv_root(&pool, NULL), b.tok), 0);
    a.n_tok = 8;
    match(&a, NULL);
    ck_assert_int_eq(a.n_block, 1);
    kv_unref(&pool, got);
    drop(&a);
    kv_pool_free(&pool);
}
END_TEST

START_TEST(salts_do_not_see_each_other)
{
    struct model_seq a = {.tok = {1, 1, 1, 1}, .n_tok = 4}, b = a;
    ck_assert(!kv_pool_create(&pool, 8, LEN, 1, NULL));
    match(&a, "one"), extend(&a);
    match(&b, "two");
    ck_assert_int_eq(b.n_block, 0);
    match(&b, NULL);
    ck_assert_int_eq(b.n_block, 0);
    match(&b, "one");
    ck_assert_int_eq(b.n_block, 1);
    kv_pool_free(&pool);
}
END_TEST

START_TEST(an_exhausted_pool_says_so)
{
    ck_assert(!kv_pool_create(&pool, 2, LEN, 1, NULL));
    int32_t a = kv_alloc(&pool);
    ck_assert_int_ge(kv_alloc(&pool), 0);
    ck_assert_int_eq(kv_alloc(&pool), -1);
    kv_unref(&pool, a);
    ck_assert_int_eq(kv_alloc(&pool), a);
    kv_pool_free(&pool);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("kv");
    tcase_add_test(tc, random_sequences_share_what_is_equal_and_leak_nothing);
    tcase_add_test(tc, the_least_recently_used_leaf_goes_first);
    tcase_add_test(tc, salts_do_not_see_each_other);
    tcase_add_test(tc, an_exhausted_pool_says_so);
    return suite_run(tc);
}
