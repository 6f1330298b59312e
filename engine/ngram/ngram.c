#include "ngram/ngram.h"

#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "mem.h"
#include "ngram/format.h"
#include "tokenizer.h"

uint64_t ngram_fingerprint(const struct tokenizer *t)
{
    uint64_t hash = (uint64_t)tok_n_vocab(t);
    for (int32_t id = 0; id < tok_n_vocab(t); id++) {
        struct slice piece = tok_piece(t, id);
        hash = XXH3_64bits_withSeed(piece.p, piece.len, hash);
    }
    return hash;
}

/* ---- reading arrays: memory handed to ngram_open_mem may lie anywhere ---- */

static uint32_t u32_at(const uint8_t *array, uint64_t i)
{
    uint32_t v;
    memcpy(&v, array + 4 * i, sizeof v);
    return v;
}

static uint32_t tok_at(const struct ngram *g, const struct ngram_level *l, uint64_t i)
{
    uint16_t v;
    if (g->tok_bytes == 4)
        return u32_at(l->tok, i);
    memcpy(&v, l->tok + 2 * i, sizeof v);
    return v;
}

/* ---- checking ---- */

struct check { /* one call of ngram_open_mem */
    struct ngram *g;
    const char *name;
    struct err *e;
};

static int fail(const struct check *c, const uint8_t *at, int32_t n, const char *what)
{
    return err_set(c->e, ERR_FORMAT, "%s: byte %zu, among the %d-grams: %s", c->name, (size_t)(at - c->g->base), n,
                   what);
}

static int check_header(const struct check *c, const struct ngram_header *h)
{
    if (h->version != NGRAM_VERSION)
        return err_set(c->e, ERR_FORMAT, "%s: byte 8: version %u of the n-gram format; %d is supported", c->name,
                       h->version, NGRAM_VERSION);
    if (h->max_n < 2 || h->max_n > NGRAM_MAX)
        return err_set(c->e, ERR_FORMAT, "%s: byte 12: n-grams of up to %u tokens; 2 to %d are supported", c->name,
                       h->max_n, NGRAM_MAX);
    if (h->n_vocab < 1 || h->n_vocab > INT32_MAX)
        return err_set(c->e, ERR_FORMAT, "%s: byte 24: a vocabulary of %u tokens", c->name, h->n_vocab);
    for (uint32_t n = h->max_n; n < NGRAM_MAX; n++)
        if (h->n_gram[n])
            return err_set(c->e, ERR_FORMAT, "%s: byte %zu: %u-grams, but the longest have %u tokens", c->name,
                           offsetof(struct ngram_header, n_gram) + 4 * n, n + 1, h->max_n);
    if (ngram_file_bytes(h) != c->g->size_bytes)
        return err_set(c->e, ERR_FORMAT, "%s: ends at byte %zu, but its header announces %llu bytes", c->name,
                       c->g->size_bytes, (unsigned long long)ngram_file_bytes(h));
    return 0;
}

static int check_tokenizer(const struct check *c, const struct ngram_header *h, const struct tokenizer *t)
{
    if (!t || (h->fingerprint == ngram_fingerprint(t) && h->n_vocab == (uint32_t)tok_n_vocab(t)))
        return 0;
    return err_set(c->e, ERR_INVALID,
                   "%s: made with another tokenizer (%u tokens, fingerprint %016llx; the model has %d, %016llx); "
                   "'galley ngram build --model' makes one for this model",
                   c->name, h->n_vocab, (unsigned long long)h->fingerprint, tok_n_vocab(t),
                   (unsigned long long)ngram_fingerprint(t));
}

static void locate_levels(struct ngram *g, const struct ngram_header *h)
{
    uint64_t at = sizeof *h;
    for (uint32_t n = 1; n <= h->max_n; n++) {
        struct ngram_place p = ngram_place_of(h, n, at);
        g->level[n - 1] = (struct ngram_level){.tok = g->base + p.tok,
                                               .count = g->base + p.count,
                                               .first = n < h->max_n ? g->base + p.first : NULL,
                                               .n = h->n_gram[n - 1]};
        at = p.end;
    }
}

/* What follows one context, entries from .. to of level n: ascending tokens, each counted, together at most `total`. */
static int check_siblings(const struct check *c, int32_t n, uint32_t from, uint32_t to, uint32_t total)
{
    const struct ngram *g = c->g;
    const struct ngram_level *l = &g->level[n - 1];
    uint64_t sum = 0;
    for (uint32_t i = from; i < to; i++) {
        uint32_t tok = tok_at(g, l, i), count = u32_at(l->count, i);
        const uint8_t *tok_place = l->tok + (size_t)i * (size_t)g->tok_bytes, *count_place = l->count + (size_t)i * 4;
        if (tok >= (uint32_t)g->n_vocab)
            return fail(c, tok_place, n, "a token that is not in the vocabulary");
        if (i > from && tok <= tok_at(g, l, i - 1))
            return fail(c, tok_place, n, "tokens after the same context are not ascending");
        if (count == 0)
            return fail(c, count_place, n, "a count of 0");
        if ((sum += count) > total)
            return fail(c, count_place, n, "more continuations than their context has occurrences");
    }
    return 0;
}

static int check_level(const struct check *c, int32_t n)
{
    const struct ngram_level *parents = &c->g->level[n - 2], *l = &c->g->level[n - 1];
    uint32_t from = u32_at(parents->first, 0);
    int rc = from ? fail(c, parents->first, n - 1, "continuations do not begin at 0") : 0;
    for (uint32_t i = 0; !rc && i < parents->n; i++) {
        uint32_t to = u32_at(parents->first, (uint64_t)i + 1);
        if (to < from || to > l->n)
            return fail(c, parents->first + ((size_t)i + 1) * 4, n - 1, "continuations go backwards or beyond the end");
        rc = check_siblings(c, n, from, to, u32_at(parents->count, i));
        from = to;
    }
    if (!rc && from != l->n)
        rc = fail(c, parents->first + (size_t)parents->n * 4, n - 1, "continuations do not reach the end");
    return rc;
}

static int check_padding(const struct check *c, int32_t n)
{
    const struct ngram_level *l = &c->g->level[n - 1];
    for (const uint8_t *p = l->tok + (size_t)l->n * (size_t)c->g->tok_bytes; p < l->count; p++)
        if (*p)
            return fail(c, p, n, "padding is not 0");
    return 0;
}

static int check_all(const struct check *c, const struct tokenizer *t)
{
    struct ngram *g = c->g;
    struct ngram_header h;
    if (g->size_bytes < sizeof h.magic || memcmp(g->base, NGRAM_MAGIC, sizeof h.magic))
        return err_set(c->e, ERR_FORMAT, "%s: byte 0: not an n-gram store", c->name);
    if (g->size_bytes < sizeof h)
        return err_set(c->e, ERR_FORMAT, "%s: truncated at byte %zu, in the header", c->name, g->size_bytes);
    memcpy(&h, g->base, sizeof h);
    int rc = check_header(c, &h);
    if (!rc)
        rc = check_tokenizer(c, &h, t);
    if (rc)
        return rc;
    g->n_vocab = (int32_t)h.n_vocab;
    g->max_n = (int32_t)h.max_n;
    g->tok_bytes = ngram_tok_bytes(h.n_vocab);
    g->fingerprint = h.fingerprint;
    g->n_token = h.n_token;
    g->n_doc = h.n_doc;
    g->min_count = h.min_count;
    locate_levels(g, &h);
    rc = check_siblings(c, 1, 0, g->level[0].n, h.n_token);
    for (int32_t n = 1; !rc && n <= g->max_n; n++)
        rc = check_padding(c, n);
    for (int32_t n = 2; !rc && n <= g->max_n; n++)
        rc = check_level(c, n);
    return rc;
}

/* ---- opening ---- */

int ngram_open_mem(struct ngram **out, const void *data, size_t size_bytes, const char *name, const struct tokenizer *t,
                   struct err *e)
{
    *out = NULL;
    struct ngram *g = mem_calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_NOMEM, "%s: out of memory", name);
    g->base = data;
    g->size_bytes = size_bytes;
    int rc = check_all(&(struct check){.g = g, .name = name, .e = e}, t);
    if (rc)
        ngram_close(g);
    else
        *out = g;
    return rc;
}

int ngram_open(struct ngram **out, const char *path, const struct tokenizer *t, struct err *e)
{
    struct file_map map;
    *out = NULL;
    int rc = map_open(&map, path, e);
    if (rc)
        return rc;
    rc = ngram_open_mem(out, map.p, map.size_bytes, path, t, e);
    if (rc)
        map_close(&map);
    else
        (*out)->map = map;
    return rc;
}

void ngram_close(struct ngram *g)
{
    if (!g)
        return;
    map_close(&g->map);
    mem_free(g);
}

/* ---- looking up ---- */

struct range { /* entries of one level */
    uint32_t from, to;
};

/* The first entry of the range whose token is not below `tok`; `to` where there is none. */
static uint32_t lower_bound(const struct ngram *g, const struct ngram_level *l, struct range r, uint32_t tok)
{
    while (r.from < r.to) {
        uint32_t mid = r.from + (r.to - r.from) / 2;
        if (tok_at(g, l, mid) < tok)
            r.from = mid + 1;
        else
            r.to = mid;
    }
    return r.from;
}

static bool find(const struct ngram *g, const struct ngram_level *l, struct range r, int32_t tok, uint32_t *at)
{
    if (tok < 0)
        return false;
    *at = lower_bound(g, l, r, (uint32_t)tok);
    return *at < r.to && tok_at(g, l, *at) == (uint32_t)tok;
}

/* Where the continuations of the context lie. Returns how often it occurred; 0: never, and the range is empty. */
static uint32_t follow(const struct ngram *g, const int32_t *ctx, int32_t n_ctx, struct range *r)
{
    uint32_t total = g->n_token, at;
    *r = (struct range){0, 0};
    if (n_ctx < 0 || n_ctx >= g->max_n)
        return 0;
    struct range in = {0, g->level[0].n};
    for (int32_t i = 0; i < n_ctx; i++) {
        const struct ngram_level *l = &g->level[i];
        if (!find(g, l, in, ctx[i], &at))
            return 0;
        total = u32_at(l->count, at);
        in = (struct range){u32_at(l->first, at), u32_at(l->first, (uint64_t)at + 1)};
    }
    *r = in;
    return total;
}

uint32_t ngram_counts(const struct ngram *g, const int32_t *ctx, int32_t n_ctx, const int32_t *tok, int32_t n_tok,
                      uint32_t *count)
{
    struct range r;
    uint32_t total = follow(g, ctx, n_ctx, &r), at;
    if (n_tok > 0)
        memset(count, 0, (size_t)n_tok * sizeof *count);
    for (int32_t i = 0; total && i < n_tok; i++)
        if (find(g, &g->level[n_ctx], r, tok[i], &at))
            count[i] = u32_at(g->level[n_ctx].count, at);
    return total;
}

int32_t ngram_top(const struct ngram *g, const int32_t *ctx, int32_t n_ctx, uint32_t max_scan, int32_t *tok,
                  uint32_t *count, int32_t n_top, uint32_t *total)
{
    struct range r;
    int32_t n = 0;
    *total = follow(g, ctx, n_ctx, &r);
    if (r.to - r.from > max_scan)
        r.to = r.from + max_scan;
    for (uint32_t i = r.from; i < r.to; i++) {
        uint32_t c = u32_at(g->level[n_ctx].count, i);
        if (n == n_top && (n == 0 || c <= count[n - 1]))
            continue;
        int32_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && count[at - 1] < c; at--) {
            count[at] = count[at - 1];
            tok[at] = tok[at - 1];
        }
        count[at] = c;
        tok[at] = (int32_t)tok_at(g, &g->level[n_ctx], i);
    }
    return n;
}
