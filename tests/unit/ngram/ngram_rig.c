#include "ngram_rig.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void push(struct text *t, int32_t tok)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 1024;
        t->tok = realloc(t->tok, t->cap * sizeof *t->tok);
        ck_assert_ptr_nonnull(t->tok);
    }
    t->tok[t->n++] = tok;
}

void text_add(struct text *t, const int32_t *tok, size_t n_tok)
{
    for (size_t i = 0; i < n_tok; i++)
        push(t, tok[i]);
    push(t, NGRAM_NO_TOKEN);
    t->n_token += (uint32_t)n_tok;
    t->n_doc += n_tok > 0;
}

struct text text_random(struct rnd *r, int32_t n_vocab, size_t n_tok, int32_t mean_len)
{
    struct text t = {0};
    int32_t *doc = malloc(sizeof *doc * (size_t)(2 * mean_len + 1));
    while (t.n_token < n_tok) {
        int32_t n = rnd_int(r, 0, 2 * mean_len);
        for (int32_t i = 0; i < n; i++) /* the least of three: small ids are frequent, and sequences come again */
            doc[i] = rnd_int(r, 0, rnd_int(r, 0, rnd_int(r, 0, n_vocab - 1)));
        text_add(&t, doc, (size_t)n);
    }
    free(doc);
    return t;
}

void text_free(struct text *t)
{
    free(t->tok);
}

uint32_t text_count(const struct text *t, const int32_t *gram, int32_t n)
{
    uint32_t count = 0;
    if (n == 0)
        return t->n_token;
    for (size_t i = 0; i + (size_t)n <= t->n; i++)
        count += !memcmp(t->tok + i, gram, (size_t)n * sizeof *gram); /* no gram holds NGRAM_NO_TOKEN */
    return count;
}

void rig_path(char out[256], const char *name)
{
    const char *dir = getenv("TMPDIR");
    snprintf(out, 256, "%s/galley-test-%s-%d", dir ? dir : "/tmp", name, (int)getpid());
}

int rig_write(const char *path, const struct text *t, const struct ngram_write_options *o, size_t memory_bytes,
              struct ngram_header *h, struct err *e)
{
    struct ngram_counter *c;
    int rc = ngram_counter_open(&c, path, o->max_n, memory_bytes, e);
    for (size_t i = 0, end; !rc && i < t->n; i = end + 1) {
        for (end = i; t->tok[end] != NGRAM_NO_TOKEN; end++)
            ;
        size_t half = (end - i) / 2; /* a document may come in pieces */
        rc = ngram_counter_add(c, t->tok + i, half, e);
        if (!rc)
            rc = ngram_counter_add(c, t->tok + i + half, end - i - half, e);
        if (!rc)
            rc = ngram_counter_end_document(c, e);
    }
    if (!rc)
        rc = ngram_counter_finish(c, e);
    if (!rc)
        rc = ngram_write(path, c, o, h, e);
    ngram_counter_close(c);
    return rc;
}

uint8_t *rig_read(const char *path, size_t *n_byte)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    fseek(f, 0, SEEK_END);
    *n_byte = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*n_byte ? *n_byte : 1);
    ck_assert_uint_eq(fread(data, 1, *n_byte, f), *n_byte);
    fclose(f);
    return data;
}
