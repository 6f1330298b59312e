/* Shared by the tokenizer's tests: small vocabularies, real ones where ../shared has them, hex, random bytes. */
#ifndef GALLEY_TEST_TOK_HELP_H
#define GALLEY_TEST_TOK_HELP_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "rng.h"
#include "tokenizer.h"

static inline uint32_t test_random(uint64_t *state)
{
    return (uint32_t)(rng_mix((*state)++) >> 32);
}

/* NULL, with a line that says so, when the vocabulary is not there. */
static inline struct tokenizer *real_tokenizer(const char *name)
{
    char path[512];
    struct gguf *g;
    struct tokenizer *t = NULL;
    struct err e;
    snprintf(path, sizeof path, "%s/data/tokenizers/ggml-vocab-%s.gguf", GALLEY_SHARED_DIR, name);
    if (gguf_open(&g, path, &e) == -ERR_NOTFOUND) {
        printf("skipped: %s is missing\n", path);
        return NULL;
    }
    ck_assert_msg(tok_from_gguf(&t, g, &e) == 0, "%s", e.msg);
    gguf_close(g);
    return t;
}

/* Encodes; the caller frees. */
static inline int32_t *encode(const struct tokenizer *t, struct slice text, int flags, size_t *n)
{
    struct tok_scratch *s = tok_scratch_new(t);
    struct err e;
    size_t cap = text.len + 2;
    int32_t *out = malloc(cap * sizeof *out);
    ck_assert_ptr_nonnull(s);
    ck_assert_msg(tok_encode(t, text.p, text.len, flags, out, cap, n, s, &e) == 0, "%s", e.msg);
    tok_scratch_free(s);
    return out;
}

static inline void expect_ids(const struct tokenizer *t, const char *text, int flags, const int32_t *want,
                              size_t n_want)
{
    size_t n;
    int32_t *got = encode(t, slice_of(text), flags, &n);
    ck_assert_msg(n == n_want && !memcmp(got, want, n * sizeof *got), "'%s' makes %zu tokens, the first %d", text, n,
                  n ? got[0] : -1);
    free(got);
}
#define EXPECT_IDS(t, text, flags, ...)                                                                                \
    expect_ids(t, text, flags, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* Returns the number of bytes; stops at the first character that is not a hex digit. */
static inline size_t unhex(const char *hex, char *out)
{
    size_t n = 0;
    unsigned v;
    for (; sscanf(hex, "%2x", &v) == 1 && hex[0] > ' ' && hex[1] > ' '; hex += 2)
        out[n++] = (char)v;
    return n;
}

#endif
