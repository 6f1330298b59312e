/* engine/ngram/ngram.c on files that are not what they should be: refused, or looked up in without leaving them. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ngram_rig.h"
#include "tokenizer.h"
#include "../suite.h"

static char path[256];
static uint8_t *store;
static size_t n_store;

/* A store of three levels, with tokens of 2 bytes or, when `wide`, of 4. */
static void make(bool wide)
{
    struct rnd r = {.state = 12};
    struct text t = text_random(&r, wide ? 70000 : 9, 40, 8);
    struct ngram_write_options o = {.n_vocab = wide ? 70000 : 9, .max_n = 3, .fingerprint = 5, .min_count = 1};
    struct ngram_header h;
    struct err e = {0};
    rig_path(path, "ngram-hostile");
    ck_assert_msg(!rig_write(path, &t, &o, 1 << 20, &h, &e), "%s", e.msg);
    store = rig_read(path, &n_store);
    text_free(&t);
}

static void teardown(void)
{
    unlink(path);
    free(store);
    store = NULL;
}

static void look_up(const struct ngram *g)
{
    static const int32_t tok[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 1000, 69999, -1, INT32_MAX};
    enum { N = sizeof tok / sizeof *tok };
    uint32_t count[N], total;
    for (int32_t a = 0; a < N; a++)
        for (int32_t b = 0; b < N; b++)
            for (int32_t n = 0; n < g->max_n; n++) {
                int32_t ctx[NGRAM_MAX] = {tok[a], tok[b], tok[(a + b) % N], tok[a], tok[b], 1};
                uint64_t sum = 0;
                total = ngram_counts(g, ctx, n, tok, N, count);
                for (int32_t k = 0; k < N; k++)
                    sum += count[k];
                ck_assert_uint_le(sum, total); /* shares never exceed 1 */
            }
}

/* Opens a copy that a sanitizer guards. Returns whether it was taken; then lookups are tried. */
static bool try(const uint8_t *data, size_t n, const char *want)
{
    uint8_t *copy = malloc(n ? n : 1);
    struct ngram *g;
    struct err e = {0};
    memcpy(copy, data, n);
    int rc = ngram_open_mem(&g, copy, n, "hostile", NULL, &e);
    if (rc) {
        ck_assert_int_eq(rc, -ERR_FORMAT);
        ck_assert_ptr_nonnull(strstr(e.msg, "byte "));
        ck_assert_ptr_null(g);
    } else {
        look_up(g);
        ngram_close(g);
    }
    if (want)
        ck_assert_msg(rc && strstr(e.msg, want), "'%s' instead of '%s'", e.msg, want);
    free(copy);
    return !rc;
}

START_TEST(every_truncation_is_refused)
{
    make(_i);
    ck_assert(try(store, n_store, NULL));
    for (size_t n = 0; n < n_store; n++)
        ck_assert(!try(store, n, NULL));
    uint8_t *longer = calloc(n_store + 1, 1);
    memcpy(longer, store, n_store);
    ck_assert(!try(longer, n_store + 1, "announces"));
    free(longer);
}
END_TEST

START_TEST(every_flipped_bit_is_harmless)
{
    make(_i);
    int n_taken = 0;
    for (size_t i = 0; i < n_store * 8; i++) {
        store[i / 8] ^= (uint8_t)(1 << i % 8);
        n_taken += try(store, n_store, NULL);
        store[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    ck_assert_int_lt(n_taken, (int)n_store * 4); /* most are noticed: not counts that stay plausible, hashes and such */
}
END_TEST

START_TEST(random_damage_is_harmless)
{
    make(_i);
    struct rnd r = rnd_begin("random_damage_is_harmless", 6);
    uint8_t *data = malloc(n_store);
    for (int round = 0; round < 20000; round++) {
        memcpy(data, store, n_store);
        for (int32_t n = rnd_int(&r, 1, 4); n > 0; n--) {
            size_t at = (size_t)rnd_int(&r, 0, (int32_t)n_store / 4 - 1) * 4;
            uint32_t v = rnd_int(&r, 0, 1) ? (uint32_t)rnd_u64(&r) : (uint32_t)rnd_int(&r, 0, 80);
            memcpy(data + at, &v, 4);
        }
        try(data, n_store, NULL);
    }
    free(data);
}
END_TEST

static void put(size_t at, uint32_t v, size_t n_byte, const char *want)
{
    uint8_t old[4];
    memcpy(old, store + at, n_byte);
    memcpy(store + at, &v, n_byte);
    try(store, n_store, want);
    memcpy(store + at, old, n_byte);
}

START_TEST(each_rule_has_its_message)
{
    make(false);
    struct ngram_header h;
    memcpy(&h, store, sizeof h);
    struct ngram_place one = ngram_place_of(&h, 1, sizeof h), two = ngram_place_of(&h, 2, one.end);
    put(0, 0, 4, "byte 0: not an n-gram store");
    put(8, 2, 4, "byte 8: version 2");
    put(12, 1, 4, "byte 12");
    put(12, 7, 4, "byte 12");
    put(24, 0, 4, "byte 24");
    put(24, UINT32_MAX, 4, "byte 24");
    put(offsetof(struct ngram_header, n_gram) + 12, 1, 4, "byte 52");
    put(offsetof(struct ngram_header, n_gram), UINT32_MAX, 4, "announces");
    put(one.tok, 9, 2, "byte 64, among the 1-grams: a token that is not in the vocabulary");
    put(one.tok + 2, 0, 2, "byte 66, among the 1-grams: tokens after the same context are not ascending");
    put(one.count, 0, 4, "a count of 0");
    put(one.count, 41, 4, "more continuations");
    put(one.first, 1, 4, "do not begin at 0");
    put(one.first + 4, UINT32_MAX, 4, "go backwards or beyond");
    put(one.first + 8, 0, 4, "go backwards or beyond");
    put(one.end - 4, h.n_gram[1] - 1, 4, "do not reach the end");
    put(two.count, UINT32_MAX, 4, "more continuations");
}
END_TEST

/* One token, so one 1-gram and two bytes of padding. */
START_TEST(padding_is_zero)
{
    struct text t = {0};
    text_add(&t, (const int32_t[]){3, 3}, 2);
    struct ngram_write_options o = {.n_vocab = 9, .max_n = 2, .min_count = 1};
    struct ngram_header h;
    rig_path(path, "ngram-hostile");
    ck_assert_int_eq(rig_write(path, &t, &o, 1 << 20, &h, NULL), 0);
    store = rig_read(path, &n_store);
    ck_assert(try(store, n_store, NULL));
    put(sizeof h + 3, 1, 1, "byte 67, among the 1-grams: padding");
    text_free(&t);
}
END_TEST

START_TEST(an_empty_store_knows_nothing)
{
    struct ngram_header h = {.magic = NGRAM_MAGIC, .version = NGRAM_VERSION, .max_n = 2, .n_vocab = 9, .min_count = 1};
    uint8_t data[sizeof h + 4] = {0};
    struct ngram *g;
    struct err e = {0};
    uint32_t count = 1;
    memcpy(data, &h, sizeof h);
    ck_assert_int_eq(ngram_open_mem(&g, data, sizeof data, "empty", NULL, &e), 0);
    ck_assert_uint_eq(ngram_counts(g, (const int32_t[]){1}, 1, (const int32_t[]){2}, 1, &count), 0);
    ck_assert_uint_eq(count, 0);
    ngram_close(g);
}
END_TEST

START_TEST(another_tokenizer_is_refused)
{
    struct tokenizer *t, *like, *other, *larger;
    struct err e = {0};
    ck_assert_int_eq(tok_new_tiny(&t, NULL, (const char *const[]){"a b", "c d"}, 2, &e), 0);
    ck_assert_int_eq(tok_new_tiny(&like, NULL, (const char *const[]){"a b", "c d"}, 2, &e), 0);
    ck_assert_int_eq(tok_new_tiny(&other, NULL, (const char *const[]){"c d", "a b"}, 2, &e), 0);
    ck_assert_int_eq(tok_new_tiny(&larger, NULL, (const char *const[]){"a b", "c d", "e f"}, 3, &e), 0);
    ck_assert(ngram_fingerprint(t) == ngram_fingerprint(like));
    struct text text = {0};
    text_add(&text, (const int32_t[]){1, 2, 3}, 3);
    struct ngram_write_options o = {
        .n_vocab = tok_n_vocab(t), .max_n = 3, .fingerprint = ngram_fingerprint(t), .min_count = 1};
    struct ngram_header h;
    struct ngram *g;
    rig_path(path, "ngram-hostile");
    ck_assert_int_eq(rig_write(path, &text, &o, 1 << 20, &h, &e), 0);
    ck_assert_int_eq(ngram_open(&g, path, like, &e), 0);
    ngram_close(g);
    ck_assert_int_eq(ngram_open(&g, path, other, &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "made with another tokenizer"));
    ck_assert_ptr_null(g);
    ck_assert_int_eq(ngram_open(&g, path, larger, &e), -ERR_INVALID);
    tok_free(t);
    tok_free(like);
    tok_free(other);
    tok_free(larger);
    text_free(&text);
}
END_TEST

START_TEST(files_that_are_none)
{
    struct ngram *g;
    struct err e = {0};
    rig_path(path, "ngram-hostile");
    ck_assert_int_eq(ngram_open(&g, path, NULL, &e), -ERR_NOTFOUND);
    ck_assert_int_eq(ngram_open(&g, "/dev", NULL, &e), -ERR_FORMAT);
    FILE *f = fopen(path, "wb");
    fclose(f);
    ck_assert_int_eq(ngram_open(&g, path, NULL, &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "not an n-gram store"));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ngram_hostile");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_loop_test(tc, every_truncation_is_refused, 0, 2);
    tcase_add_loop_test(tc, every_flipped_bit_is_harmless, 0, 2);
    tcase_add_loop_test(tc, random_damage_is_harmless, 0, 2);
    tcase_add_test(tc, each_rule_has_its_message);
    tcase_add_test(tc, padding_is_zero);
    tcase_add_test(tc, an_empty_store_knows_nothing);
    tcase_add_test(tc, another_tokenizer_is_refused);
    tcase_add_test(tc, files_that_are_none);
    return suite_run(tc);
}
