/* engine/text/bpe.c: both ways of merging agree with the definition; a megabyte takes no quadratic time. */
#include <check.h>
#include <limits.h>
#include <time.h>

#include "mem.h"
#include "../suite.h"
#include "text/tok_impl.h"
#include "tok_help.h"

/* Merges that overlap, compete and build on each other. */
static const char *const merges[] = {"a b",   "b a",    "a a",   "ab ab",     "aa a", "ba b", "b b",
                                     "aa aa", "abab a", "bb bb", "aaaa aaaa", "c a",  "ca ca"};
enum { N_MERGE = sizeof merges / sizeof *merges };

/* The definition: the lowest rank first, of equal ones the leftmost, until none is left. */
static size_t merge_by_definition(const struct vocab *v, const char *p, size_t n, int32_t *id)
{
    for (size_t i = 0; i < n; i++)
        id[i] = v->byte_id[(uint8_t)p[i]];
    for (;;) {
        const struct merge_slot *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct merge_slot *m = vocab_merge(v, id[i], id[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (!best)
            return n;
        id[at] = best->id;
        memmove(id + at + 1, id + at + 2, (n - at - 2) * sizeof *id);
        n--;
    }
}

START_TEST(test_against_definition)
{
    struct tokenizer *t;
    struct err e;
    struct symbols s = {0};
    uint64_t seed = 1;
    ck_assert_msg(tok_new_tiny(&t, "gpt-2", merges, N_MERGE, &e) == 0, "%s", e.msg);
    for (int round = 0; round < 4000; round++) {
        char text[200];
        int32_t want[200], got[200];
        size_t n = 1 + test_random(&seed) % sizeof text;
        for (size_t i = 0; i < n; i++)
            text[i] = "aaaabbbbcd"[test_random(&seed) % (round % 2 ? 10 : 8)];
        size_t n_want = merge_by_definition(&t->vocab, text, n, want);
        struct sink out = {.out = got, .cap = 200};
        ck_assert_int_eq(bpe_piece(&t->vocab, -1, text, n, &s, &out), 0);
        ck_assert_msg(out.n == n_want && !memcmp(got, want, n_want * sizeof *got), "%.*s", (int)n, text);
    }
    symbols_free(&s);
    tok_free(t);
}
END_TEST

START_TEST(test_megabyte_piece)
{
    struct tokenizer *t;
    struct err e;
    size_t len = 1000000, n;
    char *text = malloc(len);
    memset(text, 'a', len);
    ck_assert_int_eq(tok_new_tiny(&t, "gpt-2", merges, N_MERGE, &e), 0);
    clock_t start = clock();
    int32_t *got = encode(t, (struct slice){text, len}, 0, &n);
    printf("1 MB of 'a': %.3f s\n", (double)(clock() - start) / CLOCKS_PER_SEC);
    ck_assert_double_le((double)(clock() - start) / CLOCKS_PER_SEC, 20); /* quadratic would take hours */
    ck_assert_uint_ge(n, len / 8);
    free(got);
    free(text);
    tok_free(t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("bpe");
    tcase_add_test(tc, test_against_definition);
    tcase_add_test(tc, test_megabyte_piece);
    return suite_run(tc);
}
