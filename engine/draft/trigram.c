#include "draft/trigram.h"

#include <string.h>

#include "ngram/ngram.h"
#include "rng.h"

enum { WAYS = 4, LEAST_CONTEXTS = 64, LEAST_WITH_STORE = 1024 };

int32_t trigrams_size(int32_t n_tok, bool has_store)
{
    int32_t n = has_store ? LEAST_WITH_STORE : LEAST_CONTEXTS;
    while (n < n_tok && n < TRIGRAM_MAX_CONTEXTS)
        n *= 2;
    return n;
}

size_t trigrams_bytes(int32_t n_context)
{
    return sizeof(struct trigram_context) * (size_t)n_context;
}

void trigrams_init(struct trigrams *t, void *mem, int32_t n_context, const struct ngram *store)
{
    *t = (struct trigrams){.context = mem, .n_context = n_context, .store = store};
}

void trigrams_clear(struct trigrams *t)
{
    memset(t->context, 0, trigrams_bytes(t->n_context));
    t->clock = 0;
}

/* ---- Contexts ---- */

static struct trigram_context *set_of(const struct trigrams *t, int32_t a, int32_t b)
{
    uint64_t hash = rng_mix((uint64_t)(uint32_t)a << 32 | (uint32_t)b);
    return &t->context[hash & (uint64_t)(t->n_context - WAYS)];
}

static struct trigram_context *look_up(struct trigrams *t, int32_t a, int32_t b)
{
    struct trigram_context *set = set_of(t, a, b);
    for (int32_t i = 0; i < WAYS; i++)
        if (set[i].n > 0 && set[i].a == a && set[i].b == b) {
            set[i].used = ++t->clock;
            return &set[i];
        }
    return NULL;
}

/* A context that is not in: in a free place, or in that of its set's longest untouched. */
static struct trigram_context *make_room(struct trigrams *t, int32_t a, int32_t b)
{
    struct trigram_context *set = set_of(t, a, b), *c = set;
    for (int32_t i = 0; i < WAYS && c->n > 0; i++)
        if (set[i].n == 0 || t->clock - set[i].used > t->clock - c->used)
            c = &set[i];
    *c = (struct trigram_context){.a = a, .b = b, .used = ++t->clock};
    return c;
}

/* The store's likeliest after (a, b) or, where it has none, after b, with their probabilities there. */
static struct trigram_context *seed(struct trigrams *t, int32_t a, int32_t b)
{
    int32_t tok[TRIGRAM_SUCCESSORS], ctx[2] = {a, b}, n = 0;
    uint32_t count[TRIGRAM_SUCCESSORS], total = 0;
    for (int32_t skip = 0; t->store && skip < 2 && n == 0; skip++)
        n = ngram_top(t->store, ctx + skip, 2 - skip, TRIGRAM_MAX_SCAN, tok, count, TRIGRAM_SUCCESSORS, &total);
    if (n == 0)
        return NULL;
    struct trigram_context *c = make_room(t, a, b);
    for (c->n = 0; c->n < n; c->n++) {
        c->tok[c->n] = tok[c->n];
        c->weight[c->n] = (float)((double)count[c->n] / (double)total);
    }
    return c;
}

const struct trigram_context *trigrams_find(struct trigrams *t, int32_t a, int32_t b)
{
    struct trigram_context *c = look_up(t, a, b);
    return c ? c : seed(t, a, b);
}

/* ---- Learning ---- */

/* The place of the successor; a new one takes that of the lightest when there is no other. */
static int32_t place_of(struct trigram_context *c, int32_t tok)
{
    int32_t lightest = 0;
    for (int32_t i = 0; i < c->n; i++) {
        if (c->tok[i] == tok)
            return i;
        if (c->weight[i] < c->weight[lightest])
            lightest = i;
    }
    int32_t at = c->n < TRIGRAM_SUCCESSORS ? c->n++ : lightest;
    c->tok[at] = tok;
    c->weight[at] = 0;
    return at;
}

static void add(struct trigrams *t, int32_t a, int32_t b, int32_t tok)
{
    struct trigram_context *c = look_up(t, a, b);
    c = c ? c : seed(t, a, b);
    c = c ? c : make_room(t, a, b);
    float *weight = &c->weight[place_of(c, tok)];
    *weight += TRIGRAM_RATE;
    if (*weight < TRIGRAM_CAP)
        return;
    for (int32_t i = 0; i < c->n; i++)
        c->weight[i] /= 2;
}

void trigrams_learn(struct trigrams *t, const struct history_text *text, int32_t at)
{
    int32_t from = at - TRIGRAM_WINDOW + 1 > 0 ? at - TRIGRAM_WINDOW + 1 : 0;
    for (int32_t i = from; i + 2 <= at; i++)
        add(t, history_tok(text, i), history_tok(text, i + 1), history_tok(text, i + 2));
}

void trigrams_take(struct trigrams *t, const struct history_text *text, int32_t *from, int32_t to)
{
    for (int32_t n = 0; *from < to && n < TRIGRAM_MAX_TAKE; n++)
        trigrams_learn(t, text, (*from)++);
}
