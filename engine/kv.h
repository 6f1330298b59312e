/* The block pool of one model: reference counts, copy-on-write, and the prefix cache over full blocks. It moves no
 * data: it decides which block is whose, and the plan's kvops do the rest. Owner: the engine thread; private to
 * engine/.
 *
 * A block is in exactly one of three states, and n_used + n_cached + n_free == n_block always:
 *   used    ref > 0: in the table of that many sequences
 *   cached  ref == 0 and published: kept for whoever asks for the same prefix, evicted in least-recently-used order
 *   free    ref == 0, nothing worth keeping
 *
 * A published block is found by what it holds and what stands before it: its tokens and the *content id* of the block
 * before it (the salt's root id for the first). Ids are never reused, so a match is exact, not a matter of hashes. */
#ifndef GALLEY_KV_H
#define GALLEY_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct kv_block {
    int32_t ref;
    int32_t prev, next;       /* in the free or the cached list */
    int32_t hash_next;        /* chain of the index */
    uint64_t content, before; /* ids; content 0: not published */
    uint64_t hash;            /* of (before, tokens) */
};

struct kv_list {
    int32_t head, tail; /* -1: empty */
    int32_t n;
};

struct kv_pool {
    int32_t n_block, block_len;
    struct kv_block *block;
    int32_t *tok;                /* [n_block][block_len] tokens of published blocks */
    int32_t *bucket;             /* [n_bucket] index by hash, -1 ends */
    uint32_t n_bucket;           /* a power of two */
    struct kv_list free, cached; /* cached: least recently used at the head */
    uint64_t next_content;
    uint64_t hash_seed; /* random for each process: prompts cannot be made to collide */
    void *mem;
};

int kv_pool_create(struct kv_pool *p, int32_t n_block, int32_t block_len, uint64_t hash_seed, struct err *e);
void kv_pool_free(struct kv_pool *p);

/* Blocks that kv_alloc can still give: free ones and cached ones it would evict. */
static inline int32_t kv_available(const struct kv_pool *p)
{
    return p->free.n + p->cached.n;
}

/* A block with one reference, or -1. */
int32_t kv_alloc(struct kv_pool *p);
void kv_ref(struct kv_pool *p, int32_t block);
/* The last reference gone, a published block becomes the most recently used cached one. Release a table from its end,
 * so that what is nearest the root outlives what hangs on it. */
void kv_unref(struct kv_pool *p, int32_t block);

/* The id that stands before the first block of a sequence: equal salts, equal roots. `salt` may be NULL. */
uint64_t kv_root(const struct kv_pool *p, const char *salt);

/* The published block holding tok[block_len] after `before`, or -1. Takes no reference. */
int32_t kv_find(const struct kv_pool *p, uint64_t before, const int32_t *tok);
/* Publishes a full block and returns its content id. When an equal one is published already, returns that one's id and
 * leaves this block private. */
uint64_t kv_publish(struct kv_pool *p, int32_t block, uint64_t before, const int32_t *tok);

/* Walks everything; for tests and debug builds. */
bool kv_consistent(const struct kv_pool *p);

#endif
