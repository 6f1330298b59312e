/* A sequence's blocks: matched from the prefix cache, reserved, copied on write, published, shared, given back. */
#include <string.h>

#include "engine_impl.h"

static void copy_tokens(const struct seq *s, int32_t first, int32_t n, int32_t *out)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = seq_tok(s, first + i);
}

static bool uses_cache(const struct engine *eng, const struct seq *s)
{
    return !eng->opt.no_prefix_cache && !s->req->p.no_cache;
}

enum { MAX_BLOCK_LEN = 256 };

void seq_match_prefix(struct engine *eng, struct seq *s)
{
    struct kv_pool *pool = &eng->target.pool;
    int32_t tok[MAX_BLOCK_LEN], len = pool->block_len;
    s->published_id = kv_root(pool, s->req->p.cache_salt);
    s->n_published = 0;
    if (!uses_cache(eng, s))
        return;
    if (s->req->p.n_prompt_logprobs >= 0)
        return;                                     /* every prompt position has to be computed to be scored */
    while ((s->n_block + 1) * len < seq_n_tok(s)) { /* at least one token stays to be computed */
        copy_tokens(s, s->n_block * len, len, tok);
        int32_t b = kv_find(pool, s->published_id, tok);
        if (b < 0)
            break;
        kv_ref(pool, b);
        s->block[s->n_block++] = b;
        s->published_id = pool->block[b].content;
    }
    s->n_published = s->n_block;
    s->n_computed = s->n_block * len;
}

/* The block at `i` is written next: if others see it too, the sequence gets its own copy of the first n_slot slots. */
static bool make_private(struct engine *eng, struct seq *s, int32_t i, int32_t n_slot)
{
    struct lane *lane = &eng->target;
    struct kv_pool *pool = &lane->pool;
    int32_t shared = s->block[i];
    if (pool->block[shared].ref == 1)
        return true;
    if (lane->n_move == lane->plan.cap.n_kvop)
        return false;
    int32_t own = kv_alloc(pool);
    if (own < 0)
        return false;
    lane->move[lane->n_move++] =
        (struct kvop){.src = shared * pool->block_len, .dst = own * pool->block_len, .n = n_slot};
    s->block[i] = own;
    kv_unref(pool, shared);
    return true;
}

bool seq_reserve(struct engine *eng, struct seq *s, int32_t n_slot)
{
    struct kv_pool *pool = &eng->target.pool;
    int32_t len = pool->block_len, need = (s->n_computed + n_slot + len - 1) / len, partial = s->n_computed % len;
    if (partial && !make_private(eng, s, s->n_computed / len, partial))
        return false;
    while (s->n_block < need) {
        int32_t b = kv_alloc(pool);
        if (b < 0)
            return false;
        s->block[s->n_block++] = b;
    }
    return true;
}

void seq_commit(struct engine *eng, struct seq *s, int32_t n)
{
    struct kv_pool *pool = &eng->target.pool;
    int32_t tok[MAX_BLOCK_LEN], len = pool->block_len;
    s->n_computed += n;
    if (!uses_cache(eng, s))
        return;
    while ((s->n_published + 1) * len <= s->n_computed) {
        copy_tokens(s, s->n_published * len, len, tok);
        s->published_id = kv_publish(pool, s->block[s->n_published], s->published_id, tok);
        s->n_published++;
    }
}

void seq_fork(struct engine *eng, const struct seq *from, struct seq *to)
{
    BUG_ON(eng->target.n_move || to->n_block);
    int32_t n = (from->n_computed + eng->target.pool.block_len - 1) / eng->target.pool.block_len;
    for (int32_t i = 0; i < n; i++) {
        kv_ref(&eng->target.pool, from->block[i]);
        to->block[i] = from->block[i];
    }
    to->n_block = n;
    to->n_computed = from->n_computed;
    to->n_published = from->n_published;
    to->published_id = from->published_id;
}

void seq_release(struct engine *eng, struct seq *s)
{
    while (s->n_block > 0)
        kv_unref(&eng->target.pool, s->block[--s->n_block]);
    s->n_computed = 0;
    s->n_published = 0;
}
