#include "kv.h"

#include <string.h>
#include <xxhash.h>

#include "mem.h"

static void list_push(struct kv_pool *p, struct kv_list *l, int32_t b)
{
    struct kv_block *k = &p->block[b];
    k->prev = l->tail;
    k->next = -1;
    if (l->tail >= 0)
        p->block[l->tail].next = b;
    else
        l->head = b;
    l->tail = b;
    l->n++;
}

static void list_remove(struct kv_pool *p, struct kv_list *l, int32_t b)
{
    struct kv_block *k = &p->block[b];
    if (k->prev >= 0)
        p->block[k->prev].next = k->next;
    else
        l->head = k->next;
    if (k->next >= 0)
        p->block[k->next].prev = k->prev;
    else
        l->tail = k->prev;
    l->n--;
}

int kv_pool_create(struct kv_pool *p, int32_t n_block, int32_t block_len, uint64_t hash_seed, struct err *e)
{
    uint32_t n_bucket = 16;
    while (n_bucket < 2 * (uint32_t)n_block)
        n_bucket *= 2;
    size_t blocks = (size_t)n_block * sizeof *p->block, toks = (size_t)n_block * (size_t)block_len * sizeof *p->tok;
    char *mem = mem_alloc(blocks + toks + n_bucket * sizeof *p->bucket);
    if (!mem)
        return err_set(e, ERR_NOMEM, "out of memory: tables of %d KV blocks", n_block);
    *p = (struct kv_pool){.n_block = n_block,
                          .block_len = block_len,
                          .n_bucket = n_bucket,
                          .hash_seed = hash_seed,
                          .mem = mem,
                          .next_content = 1,
                          .free = {-1, -1, 0},
                          .cached = {-1, -1, 0}};
    p->block = (struct kv_block *)mem;
    p->tok = (int32_t *)(mem + blocks);
    p->bucket = (int32_t *)(mem + blocks + toks);
    memset(p->bucket, 0xff, n_bucket * sizeof *p->bucket);
    memset(p->block, 0, blocks);
    for (int32_t b = n_block - 1; b >= 0; b--)
        list_push(p, &p->free, b);
    return 0;
}

void kv_pool_free(struct kv_pool *p)
{
    mem_free(p->mem);
    *p = (struct kv_pool){0};
}

/* ---- The index of published blocks ---- */

static uint64_t hash_of(const struct kv_pool *p, uint64_t before, const int32_t *tok)
{
    return XXH3_64bits_withSeed(tok, (size_t)p->block_len * sizeof *tok, p->hash_seed ^ before * 0x9E3779B97F4A7C15u);
}

static int32_t *bucket_of(const struct kv_pool *p, uint64_t hash)
{
    return &p->bucket[hash & (p->n_bucket - 1)];
}

static void unpublish(struct kv_pool *p, int32_t b)
{
    int32_t *at = bucket_of(p, p->block[b].hash);
    while (*at != b)
        at = &p->block[*at].hash_next;
    *at = p->block[b].hash_next;
    p->block[b].content = 0;
}

uint64_t kv_root(const struct kv_pool *p, const char *salt)
{
    /* The high bit keeps roots apart from content ids, which count up from 1. */
    return (uint64_t)1 << 63 | (salt ? XXH3_64bits_withSeed(salt, strlen(salt), p->hash_seed) : 0);
}

int32_t kv_find(const struct kv_pool *p, uint64_t before, const int32_t *tok)
{
    uint64_t hash = hash_of(p, before, tok);
    size_t len = (size_t)p->block_len;
    for (int32_t b = *bucket_of(p, hash); b >= 0; b = p->block[b].hash_next)
        if (p->block[b].hash == hash && p->block[b].before == before &&
            !memcmp(p->tok + (size_t)b * len, tok, len * sizeof *tok))
            return b;
    return -1;
}

uint64_t kv_publish(struct kv_pool *p, int32_t block, uint64_t before, const int32_t *tok)
{
    struct kv_block *k = &p->block[block];
    BUG_ON(k->ref < 1 || k->content);
    int32_t twin = kv_find(p, before, tok);
    if (twin >= 0)
        return p->block[twin].content;
    k->content = p->next_content++;
    k->before = before;
    k->hash = hash_of(p, before, tok);
    memcpy(p->tok + (size_t)block * (size_t)p->block_len, tok, (size_t)p->block_len * sizeof *tok);
    int32_t *at = bucket_of(p, k->hash);
    k->hash_next = *at;
    *at = block;
    return k->content;
}

/* ---- References ---- */

int32_t kv_alloc(struct kv_pool *p)
{
    int32_t b = p->free.tail; /* freed last: still warm in the caches */
    if (b >= 0) {
        list_remove(p, &p->free, b);
    } else if ((b = p->cached.head) >= 0) {
        list_remove(p, &p->cached, b);
        unpublish(p, b);
    } else {
        return -1;
    }
    p->block[b].ref = 1;
    return b;
}

void kv_ref(struct kv_pool *p, int32_t block)
{
    if (p->block[block].ref++ == 0) {
        BUG_ON(!p->block[block].content);
        list_remove(p, &p->cached, block);
    }
}

void kv_unref(struct kv_pool *p, int32_t block)
{
    BUG_ON(p->block[block].ref < 1);
    if (--p->block[block].ref == 0)
        list_push(p, p->block[block].content ? &p->cached : &p->free, block);
}

/* ---- Self-check ---- */

static bool list_consistent(const struct kv_pool *p, const struct kv_list *l, bool published)
{
    int32_t n = 0, last = -1;
    for (int32_t b = l->head; b >= 0; last = b, b = p->block[b].next, n++)
        if (n > p->n_block || p->block[b].ref != 0 || p->block[b].prev != last ||
            (p->block[b].content != 0) != published)
            return false;
    return n == l->n && last == l->tail;
}

bool kv_consistent(const struct kv_pool *p)
{
    int32_t n_used = 0, n_indexed = 0, n_published = 0;
    for (int32_t b = 0; b < p->n_block; b++) {
        n_used += p->block[b].ref > 0;
        n_published += p->block[b].content != 0;
    }
    for (uint32_t i = 0; i < p->n_bucket; i++)
        for (int32_t b = p->bucket[i]; b >= 0; b = p->block[b].hash_next)
            n_indexed += p->block[b].content != 0 && bucket_of(p, p->block[b].hash) == &p->bucket[i];
    return list_consistent(p, &p->free, false) && list_consistent(p, &p->cached, true) && n_indexed == n_published &&
           n_used + p->free.n + p->cached.n == p->n_block;
}
