/* Byte-pair encoding of one piece: start from bytes, merge the pair of lowest rank (of equal ones the leftmost) until
 * none is left. Short pieces scan for the lowest each time; long ones keep a heap over a linked list. */
#include "tok_impl.h"

enum { SHORT = 32 };

static void put(struct sink *out, int32_t id, int32_t unk)
{
    if (id >= 0)
        sink_put(out, id);
    else if (unk >= 0) /* a byte without a token; models without unk drop it */
        sink_put(out, unk);
}

/* ---- short pieces ---- */

struct pair {
    int32_t rank, id; /* NO_RANK: does not merge */
};

static struct pair pair_of(const struct vocab *v, int32_t left, int32_t right)
{
    const struct merge_slot *m = vocab_merge(v, left, right);
    return m ? (struct pair){m->rank, m->id} : (struct pair){NO_RANK, -1};
}

static void merge_short(const struct vocab *v, int32_t unk, const char *p, int n, struct sink *out)
{
    int32_t id[SHORT];
    struct pair pair[SHORT]; /* pair[i] joins id[i] and id[i + 1] */
    for (int i = 0; i < n; i++)
        id[i] = v->byte_id[(uint8_t)p[i]];
    for (int i = 0; i < n - 1; i++)
        pair[i] = pair_of(v, id[i], id[i + 1]);
    while (n > 1) {
        int best = 0;
        for (int i = 1; i < n - 1; i++)
            if (pair[i].rank < pair[best].rank)
                best = i;
        if (pair[best].rank == NO_RANK)
            break;
        id[best] = pair[best].id;
        n--;
        for (int i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            pair[i - 1] = pair[i];
        }
        if (best > 0)
            pair[best - 1] = pair_of(v, id[best - 1], id[best]);
        if (best < n - 1)
            pair[best] = pair_of(v, id[best], id[best + 1]);
    }
    for (int i = 0; i < n; i++)
        put(out, id[i], unk);
}

/* ---- long pieces ---- */

static void pair_update(const struct vocab *v, struct symbols *s, int32_t i)
{
    const struct merge_slot *m = s->next[i] < 0 ? NULL : vocab_merge(v, s->id[i], s->id[s->next[i]]);
    symbols_offer(s, i, m ? m->rank : NO_RANK);
}

static void merge_at(const struct vocab *v, struct symbols *s, int32_t i)
{
    int32_t id = vocab_merge(v, s->id[i], s->id[s->next[i]])->id;
    symbols_join(s, i);
    s->id[i] = id;
    pair_update(v, s, i);
    if (s->prev[i] >= 0)
        pair_update(v, s, s->prev[i]);
}

static int merge_long(const struct vocab *v, int32_t unk, const char *p, size_t n, struct symbols *s, struct sink *out)
{
    if (symbols_reserve(s, n))
        return -ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        s->id[i] = v->byte_id[(uint8_t)p[i]];
        s->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        s->prev[i] = (int32_t)i - 1;
    }
    for (size_t i = 0; i < n; i++)
        pair_update(v, s, (int32_t)i);
    for (int32_t i; (i = symbols_best(s)) >= 0;)
        merge_at(v, s, i);
    for (int32_t i = 0; i >= 0; i = s->next[i])
        put(out, s->id[i], unk);
    return 0;
}

int bpe_piece(const struct vocab *v, int32_t unk, const char *p, size_t n, struct symbols *s, struct sink *out)
{
    if (n > SHORT)
        return merge_long(v, unk, p, n, s, out);
    merge_short(v, unk, p, (int)n, out);
    return 0;
}
