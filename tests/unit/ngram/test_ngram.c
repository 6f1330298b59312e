/* engine/ngram: counter, writer and store against counts taken by scanning the text. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "ngram_rig.h"
#include "../suite.h"

static char path[256], other_path[256];

static void setup(void)
{
    rig_path(path, "ngram");
    rig_path(other_path, "ngram-other");
}

static void teardown(void)
{
    unlink(path);
    unlink(other_path);
}

/* Every n-gram that begins at text position i, and tokens that may or may not follow it. */
static void check_place(const struct ngram *g, const struct text *t, size_t i, struct rnd *r, uint32_t min_count)
{
    int32_t gram[NGRAM_MAX], tok[8];
    uint32_t count[8];
    for (int32_t n = 0; n < g->max_n && t->tok[i + (size_t)n] != NGRAM_NO_TOKEN; n++) {
        for (int32_t k = 0; k < 8; k++)
            tok[k] = k ? rnd_int(r, -1, g->n_vocab) : t->tok[i + (size_t)n];
        uint32_t total = ngram_counts(g, gram, n, tok, 8, count), want = text_count(t, gram, n);
        ck_assert_uint_eq(total, n == 0 || want >= min_count ? want : 0);
        for (int32_t k = 0; k < 8; k++) {
            gram[n] = tok[k];
            want = tok[k] < 0 ? 0 : text_count(t, gram, n + 1);
            ck_assert_uint_eq(count[k], want >= min_count ? want : 0);
        }
        gram[n] = t->tok[i + (size_t)n];
    }
}

static void check_store(const struct text *t, int32_t n_vocab, int32_t max_n, uint32_t min_count, size_t memory_bytes,
                        int n_place, struct rnd *r)
{
    struct ngram_write_options o = {.n_vocab = n_vocab, .max_n = max_n, .fingerprint = 7, .min_count = min_count};
    struct ngram_header h;
    struct ngram *g;
    struct err e = {0};
    ck_assert_msg(!rig_write(path, t, &o, memory_bytes, &h, &e), "%s", e.msg);
    ck_assert_msg(!ngram_open(&g, path, NULL, &e), "%s", e.msg);
    ck_assert_int_eq(g->n_vocab, n_vocab);
    ck_assert_int_eq(g->max_n, max_n);
    ck_assert_uint_eq(g->n_token, t->n_token);
    ck_assert_uint_eq(g->n_doc, t->n_doc);
    for (int i = 0; i < n_place; i++)
        check_place(g, t, (size_t)rnd_int(r, 0, (int32_t)t->n - 1), r, min_count);
    ngram_close(g);
}

START_TEST(counts_are_those_of_the_text)
{
    struct rnd r = rnd_begin("counts_are_those_of_the_text", 1);
    for (int round = 0; round < 60; round++) {
        static const int32_t vocab[] = {1, 2, 5, 40, 300, 65536, 65537, 200000};
        int32_t n_vocab = vocab[round % 8], max_n = rnd_int(&r, 2, NGRAM_MAX);
        struct text t = text_random(&r, n_vocab, (size_t)rnd_int(&r, 8, 600), rnd_int(&r, 2, 60));
        uint32_t min_count = n_vocab < 100 && round % 3 == 0 ? 2 : 1;
        check_store(&t, n_vocab, max_n, min_count, NGRAM_MIN_MEMORY, 40, &r);
        text_free(&t);
    }
}
END_TEST

START_TEST(runs_on_disk_count_as_one)
{
    struct rnd r = rnd_begin("runs_on_disk_count_as_one", 2);
    struct text t = text_random(&r, 12, 60000, 300); /* 8 runs */
    check_store(&t, 12, 6, 1, NGRAM_MIN_MEMORY, 25, &r);
    check_store(&t, 12, 3, 5, NGRAM_MIN_MEMORY, 25, &r);
    text_free(&t);
}
END_TEST

/* More than 64 runs, which are merged on the way, against a single one. */
START_TEST(memory_does_not_change_the_file)
{
    struct rnd r = rnd_begin("memory_does_not_change_the_file", 3);
    struct text t = text_random(&r, 50, 800000, 5000);
    struct ngram_write_options o = {.n_vocab = 50, .max_n = 4, .min_count = 3};
    struct ngram_header h, other_h;
    struct err e = {0};
    ck_assert_msg(!rig_write(path, &t, &o, NGRAM_MIN_MEMORY, &h, &e), "%s", e.msg);
    ck_assert_msg(!rig_write(other_path, &t, &o, 1 << 24, &other_h, &e), "%s", e.msg);
    size_t n, n_other;
    uint8_t *data = rig_read(path, &n), *other = rig_read(other_path, &n_other);
    ck_assert_uint_eq(n, n_other);
    ck_assert(!memcmp(data, other, n));
    free(data);
    free(other);
    text_free(&t);
}
END_TEST

START_TEST(the_least_threshold_that_fits_is_chosen)
{
    struct rnd r = rnd_begin("the_least_threshold_that_fits_is_chosen", 4);
    struct text t = text_random(&r, 30, 5000, 50);
    struct ngram_write_options o = {.n_vocab = 30, .max_n = 6, .min_count = 1};
    struct ngram_header all, h, less;
    struct err e = {0};
    ck_assert_int_eq(rig_write(path, &t, &o, 1 << 20, &all, &e), 0);
    for (uint64_t max_bytes = ngram_file_bytes(&all) + 10; max_bytes > 2000; max_bytes = max_bytes * 2 / 3) {
        o.max_bytes = max_bytes;
        o.min_count = 1;
        ck_assert_int_eq(rig_write(path, &t, &o, 1 << 20, &h, &e), 0);
        size_t n;
        free(rig_read(path, &n));
        ck_assert_uint_eq(n, ngram_file_bytes(&h));
        ck_assert_uint_le(n, max_bytes);
        o.max_bytes = 0;
        o.min_count = h.min_count;
        ck_assert_int_eq(rig_write(other_path, &t, &o, 1 << 20, &less, &e), 0);
        ck_assert(!memcmp(&h, &less, sizeof h)); /* it is the same as asking for that threshold */
        if (h.min_count > 1) {
            o.min_count = h.min_count - 1;
            ck_assert_int_eq(rig_write(other_path, &t, &o, 1 << 20, &less, &e), 0);
            ck_assert_uint_gt(ngram_file_bytes(&less), max_bytes);
        }
    }
    o.max_bytes = 100;
    unlink(path);
    ck_assert_int_eq(rig_write(path, &t, &o, 1 << 20, &h, &e), -ERR_INVALID);
    ck_assert_int_eq(access(path, F_OK), -1);
    text_free(&t);
}
END_TEST

START_TEST(a_text_by_hand)
{
    struct text t = {0};
    text_add(&t, (const int32_t[]){1, 2, 3, 1, 2, 4}, 6);
    text_add(&t, NULL, 0);
    text_add(&t, (const int32_t[]){1, 2}, 2);
    struct ngram_write_options o = {.n_vocab = 5, .max_n = 3, .min_count = 1};
    struct ngram_header h;
    struct ngram *g;
    struct err e = {0};
    ck_assert_int_eq(rig_write(path, &t, &o, 1 << 20, &h, &e), 0);
    ck_assert_int_eq(ngram_open(&g, path, NULL, &e), 0);
    ck_assert_uint_eq(g->n_doc, 2);
    static const int32_t tok[] = {1, 2, 3, 4, 0, -5, 99};
    uint32_t count[7];
    ck_assert_uint_eq(ngram_counts(g, NULL, 0, tok, 7, count), 8);
    ck_assert(!memcmp(count, (const uint32_t[]){3, 3, 1, 1, 0, 0, 0}, sizeof count));
    /* 2 occurs three times; once a document ends there, and 2 1 spans two documents. */
    ck_assert_uint_eq(ngram_counts(g, (const int32_t[]){2}, 1, tok, 7, count), 3);
    ck_assert(!memcmp(count, (const uint32_t[]){0, 0, 1, 1, 0, 0, 0}, sizeof count));
    ck_assert_uint_eq(ngram_counts(g, (const int32_t[]){1, 2}, 2, tok, 7, count), 3);
    ck_assert(!memcmp(count, (const uint32_t[]){0, 0, 1, 1, 0, 0, 0}, sizeof count));
    ck_assert_uint_eq(ngram_counts(g, (const int32_t[]){2, 1}, 2, tok, 7, count), 0);
    ck_assert_uint_eq(ngram_counts(g, (const int32_t[]){1, 2, 3}, 3, tok, 7, count), 0); /* longer than it holds */
    ck_assert_uint_eq(ngram_counts(g, tok, -1, tok, 7, count), 0);
    ck_assert_uint_eq(count[0], 0);
    unsigned long n_alloc = mem_thread_count();
    ck_assert_uint_eq(ngram_counts(g, (const int32_t[]){3}, 1, tok, 0, NULL), 1);
    ck_assert_uint_eq(mem_thread_count(), n_alloc);
    ngram_close(g);
    ngram_close(NULL);
    text_free(&t);
}
END_TEST

START_TEST(without_text_there_is_no_store)
{
    struct ngram_write_options o = {.n_vocab = 5, .max_n = 3, .min_count = 1};
    struct ngram_header h;
    struct err e = {0};
    struct text empty = {0}, single = {0};
    ck_assert_int_eq(rig_write(path, &empty, &o, 1 << 20, &h, &e), -ERR_INVALID);
    text_add(&single, (const int32_t[]){3}, 1);
    ck_assert_int_eq(rig_write(path, &single, &o, 1 << 20, &h, &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "no n-grams"));
    ck_assert_int_eq(access(path, F_OK), -1);
    text_free(&single);
}
END_TEST

START_TEST(any_allocation_may_fail)
{
    struct rnd r = rnd_begin("any_allocation_may_fail", 5);
    struct text t = text_random(&r, 12, 20000, 300);
    struct ngram_write_options o = {.n_vocab = 12, .max_n = 6, .min_count = 1};
    struct ngram_header h;
    struct ngram *g;
    int rc = -ERR_NOMEM;
    for (long n = 1; rc; n++) {
        struct err e = {0};
        mem_fail_nth(n);
        rc = rig_write(path, &t, &o, NGRAM_MIN_MEMORY, &h, &e);
        mem_fail_nth(0);
        ck_assert(!rc || (rc == -ERR_NOMEM && e.msg[0] && access(path, F_OK)));
    }
    mem_fail_nth(1);
    ck_assert_int_eq(ngram_open(&g, path, NULL, NULL), -ERR_NOMEM);
    mem_fail_nth(0);
    text_free(&t);
}
END_TEST

START_TEST(what_cannot_be_written)
{
    struct text t = {0};
    text_add(&t, (const int32_t[]){1, 2}, 2);
    struct ngram_write_options o = {.n_vocab = 5, .max_n = 3, .min_count = 1};
    struct ngram_header h;
    struct ngram_counter *c;
    struct err e = {0};
    ck_assert_int_eq(rig_write("/nonexistent/store", &t, &o, 1 << 20, &h, &e), -ERR_IO);
    ck_assert_int_eq(ngram_counter_open(&c, path, 7, 1 << 20, &e), -ERR_INVALID);
    ck_assert_int_eq(ngram_counter_open(&c, path, 1, 1 << 20, &e), -ERR_INVALID);
    ck_assert_int_eq(ngram_counter_open(&c, path, 2, 100, &e), -ERR_INVALID);
    ck_assert_ptr_null(c);
    text_free(&t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ngram");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, counts_are_those_of_the_text);
    tcase_add_test(tc, runs_on_disk_count_as_one);
    tcase_add_test(tc, memory_does_not_change_the_file);
    tcase_add_test(tc, the_least_threshold_that_fits_is_chosen);
    tcase_add_test(tc, a_text_by_hand);
    tcase_add_test(tc, without_text_there_is_no_store);
    tcase_add_test(tc, any_allocation_may_fail);
    tcase_add_test(tc, what_cannot_be_written);
    return suite_run(tc);
}
