/* Merging in order: a linked list of symbols and a heap of the pairs that may merge, so that a megabyte of one letter
 * costs n log n. */
#include "mem.h"
#include "tok_impl.h"

int symbols_reserve(struct symbols *s, size_t n)
{
    s->n_heap = 0;
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

void symbols_free(struct symbols *s)
{
    mem_free(s->id);
    mem_free(s->next);
    mem_free(s->prev);
    mem_free(s->rank);
    mem_free(s->heap);
    *s = (struct symbols){0};
}

static void heap_push(struct symbols *s, uint64_t key)
{
    size_t at = s->n_heap++;
    for (; at > 0 && s->heap[(at - 1) / 2] > key; at = (at - 1) / 2)
        s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = key;
}

static uint64_t heap_pop(struct symbols *s)
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

void symbols_offer(struct symbols *s, int32_t i, int32_t rank)
{
    s->rank[i] = rank;
    if (rank != NO_RANK)
        heap_push(s, (uint64_t)rank << 32 | (uint32_t)i);
}

int32_t symbols_best(struct symbols *s)
{
    while (s->n_heap) {
        uint64_t key = heap_pop(s);
        int32_t i = (int32_t)(uint32_t)key;
        if (s->rank[i] == (int32_t)(key >> 32)) { /* else an offer that was changed since */
            s->rank[i] = NO_RANK;
            return i;
        }
    }
    return -1;
}

int32_t symbols_join(struct symbols *s, int32_t i)
{
    int32_t gone = s->next[i];
    s->next[i] = s->next[gone];
    if (s->next[i] >= 0)
        s->prev[s->next[i]] = i;
    s->rank[gone] = NO_RANK;
    return gone;
}
