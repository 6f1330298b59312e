/* Byte-pair encoding of one piece: start from bytes, merge the pair of lowest rank (of equal ones the leftmost) until
 * none is left. Short pieces scan for the lowest each time; long ones keep a heap over a linked list, so that a
 * megabyte of one letter costs n log n. */
#include <limits.h>
#include <string.h>

#include "mem.h"
#include "tok_impl.h"

enum { SHORT = 32, NO_RANK = INT_MAX };

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

static int reserve(struct bpe_scratch *s, size_t n)
{
    if (n > s->cap) {
        int32_t **arrays[] = {&s->id, &s->next, &s->prev, &s->rank};
        for (int i = 0; i < 4; i++) {
            int32_t *p = mem_realloc(*arrays[i], n * sizeof *p);
            if (!p)
                return -ERR_NOMEM;
            *arrays[i] = p;
        }
        s->cap = n;
    }
    if (3 * n > s->heap_cap) { /* a pair each at first; a merge takes one out and puts at most two in */
        uint64_t *heap = mem_realloc(s->heap, 3 * n * sizeof *heap);
        if (!heap)
            return -ERR_NOMEM;
        s->heap = heap;
        s->heap_cap = 3 * n;
    }
    return 0;
}

static void heap_push(struct bpe_scratch *s, uint64_t key)
{
    size_t at = s->n_heap++;
    for (; at > 0 && s->heap[(at - 1) / 2] > key; at = (at - 1) / 2)
        s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = key;
}

static uint64_t heap_pop(struct bpe_scratch *s)
{
    uint64_t top = s->heap[0], key = s->heap[--s->n_heap];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && s->heap[child + 1] < s->heap[child])
            child++;
        if (s->heap[child] >= key)
            break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = key;
    return top;
}

/* Looks up the pair that begins at i. An older entry of i in the heap is told by its rank, which no longer matches. */
static void pair_update(const struct vocab *v, struct bpe_scratch *s, int32_t i)
{
    s->rank[i] = NO_RANK;
    if (s->next[i] < 0)
        return;
    const struct merge_slot *m = vocab_merge(v, s->id[i], s->id[s->next[i]]);
    if (!m)
        return;
    s->rank[i] = m->rank;
    heap_push(s, (uint64_t)m->rank << 32 | (uint32_t)i);
}

static void merge_at(const struct vocab *v, struct bpe_scratch *s, int32_t i)
{
    int32_t right = s->next[i];
    s->id[i] = vocab_merge(v, s->id[i], s->id[right])->id;
    s->next[i] = s->next[right];
    if (s->next[i] >= 0)
        s->prev[s->next[i]] = i;
    s->rank[right] = NO_RANK;
    pair_update(v, s, i);
    if (s->prev[i] >= 0)
        pair_update(v, s, s->prev[i]);
}

static int merge_long(const struct vocab *v, int32_t unk, const char *p, size_t n, struct bpe_scratch *s,
                      struct sink *out)
{
    if (reserve(s, n))
        return -ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        s->id[i] = v->byte_id[(uint8_t)p[i]];
        s->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        s->prev[i] = (int32_t)i - 1;
    }
    s->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        pair_update(v, s, (int32_t)i);
    while (s->n_heap) {
        uint64_t key = heap_pop(s);
        int32_t i = (int32_t)(uint32_t)key;
        if (s->rank[i] == (int32_t)(key >> 32))
            merge_at(v, s, i);
    }
    for (int32_t i = 0; i >= 0; i = s->next[i])
        put(out, s->id[i], unk);
    return 0;
}

int bpe_piece(const struct vocab *v, int32_t unk, const char *p, size_t n, struct bpe_scratch *s, struct sink *out)
{
    if (n > SHORT)
        return merge_long(v, unk, p, n, s, out);
    merge_short(v, unk, p, (int)n, out);
    return 0;
}
