#include "history.h"

#include <string.h>

static int32_t table_bits(int32_t cap)
{
    int32_t bits = 4;
    while (bits < 20 && 2 << bits < cap)
        bits++;
    return bits;
}

size_t history_bytes(int32_t cap)
{
    return sizeof(int32_t) * (((size_t)1 << table_bits(cap)) + (size_t)cap);
}

void history_begin(struct history *h, void *mem, int32_t cap, int32_t min_match)
{
    int32_t bits = table_bits(cap);
    *h = (struct history){
        .head = mem, .prev = (int32_t *)mem + ((size_t)1 << bits), .bits = bits, .cap = cap, .min_match = min_match};
    memset(h->head, 0xff, sizeof *h->head << bits);
    h->n_indexed = min_match;
}

/* Of the min_match tokens before `place`. */
static uint32_t gram_hash(const struct history *h, const struct history_text *t, int32_t place)
{
    uint64_t x = 0;
    for (int32_t i = place - h->min_match; i < place; i++)
        x = (x ^ (uint64_t)(uint32_t)history_tok(t, i)) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(x >> (64 - h->bits));
}

static void take_in(struct history *h, const struct history_text *t)
{
    int32_t to = t->n - h->n_indexed > HISTORY_MAX_TAKE ? h->n_indexed + HISTORY_MAX_TAKE : t->n;
    for (; h->n_indexed < to; h->n_indexed++) {
        uint32_t slot = gram_hash(h, t, h->n_indexed);
        h->prev[h->n_indexed] = h->head[slot];
        h->head[slot] = h->n_indexed;
    }
}

int32_t history_common(const struct history_text *t, int32_t a, int32_t b, int32_t max)
{
    int32_t n = 0;
    while (n < max && n < a && history_tok(t, a - 1 - n) == history_tok(t, b - 1 - n))
        n++;
    return n;
}

struct history_match history_find(struct history *h, const struct history_text *t)
{
    struct history_match best = {0};
    if (t->n <= h->min_match)
        return best;
    take_in(h, t);
    int32_t at = h->head[gram_hash(h, t, t->n)];
    for (int32_t i = 0; i < HISTORY_MAX_CHAIN && at >= 0; i++, at = h->prev[at]) {
        int32_t len = history_common(t, at, t->n, HISTORY_MAX_MATCH);
        if (len >= h->min_match && len > best.len)
            best = (struct history_match){.at = at, .len = len};
        if (best.len == HISTORY_MAX_MATCH)
            break;
    }
    return best;
}
