/* A sequence's blocks: matched from the prefix cache, reserved, copied on write, published, shared, given back. */
#include <string.h>

#include "engine_impl.h"

static void copy_tokens(const struct seq *s, int32_t first, int32_t n, int32_t *out)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = seq_tok(s, first + i);
}

static bool uses_cache(const struct lane *lane, const struct seq *s)
{
    return lane->caches && !s->req->p.no_cache;
}

enum { MAX_BLOCK_LEN = 256 };

/* Tokens that may come from the cache, all but the last at most: a position that is scored has to be computed. */
static int32_t n_matchable(const struct seq *s)
{
    const struct gen_params *p = &s->req->p;
    bool scores_output = p->decoding.strategy == DECODE_SUPERPOSED && p->decoding.superposed.rescore;
    return p->n_prompt_logprobs >= 0 ? 0 : scores_output ? s->req->n_prompt : seq_n_tok(s);
}

void seq_match_prefix(struct lane *lane, const struct seq *s, struct seq_kv *kv)
{
    struct kv_pool *pool = &lane->pool;
    int32_t tok[MAX_BLOCK_LEN], len = pool->block_len;
    kv->published_id = kv_root(pool, s->req->p.cache_salt);
    kv->n_published = 0;
    if (!uses_cache(lane, s))
        return;
    while ((kv->n_block + 1) * len < n_matchable(s)) {
        copy_tokens(s, kv->n_block * len, len, tok);
        int32_t b = kv_find(pool, kv->published_id, tok);
        if (b < 0)
            break;
        kv_ref(pool, b);
        kv->block[kv->n_block++] = b;
        kv->published_id = pool->block[b].content;
    }
    kv->n_published = kv->n_block;
    kv->n_computed = kv->n_block * len;
}

/* The block at `i` is written next: if others see it too, the sequence gets its own copy of the first n_slot slots. */
static bool make_private(struct lane *lane, struct seq_kv *kv, int32_t i, int32_t n_slot)
{
    struct kv_pool *pool = &lane->pool;
    int32_t shared = kv->block[i];
    if (pool->block[shared].ref == 1)
        return true;
    if (lane->n_move == lane->plan.cap.n_kvop)
        return false;
    int32_t own = kv_alloc(pool);
    if (own < 0)
        return false;
    lane->move[lane->n_move++] =
        (struct kvop){.src = shared * pool->block_len, .dst = own * pool->block_len, .n = n_slot};
    kv->moved_in = lane->n_plan + 1;
    kv->block[i] = own;
    kv_unref(pool, shared);
    return true;
}

bool seq_reserve(struct lane *lane, struct seq_kv *kv, int32_t n_slot)
{
    struct kv_pool *pool = &lane->pool;
    int32_t len = pool->block_len, need = (kv->n_computed + n_slot + len - 1) / len, partial = kv->n_computed % len;
    if (partial && !make_private(lane, kv, kv->n_computed / len, partial))
        return false;
    while (kv->n_block < need) {
        int32_t b = kv_alloc(pool);
        if (b < 0)
            return false;
        kv->block[kv->n_block++] = b;
    }
    return true;
}

void seq_commit(struct lane *lane, const struct seq *s, struct seq_kv *kv, int32_t n)
{
    struct kv_pool *pool = &lane->pool;
    int32_t tok[MAX_BLOCK_LEN], len = pool->block_len;
    kv->n_computed += n;
    if (!uses_cache(lane, s) || kv->moved_in > lane->n_plan) /* nothing is published before its moves have run */
        return;
    while ((kv->n_published + 1) * len <= kv->n_computed) {
        copy_tokens(s, kv->n_published * len, len, tok);
        kv->published_id = kv_publish(pool, kv->block[kv->n_published], kv->published_id, tok);
        kv->n_published++;
    }
}

bool seq_commit_row(struct lane *lane, const struct seq *s, struct seq_kv *kv, int32_t slot)
{
    int32_t len = lane->pool.block_len, to = kv->n_computed;
    if (slot != to) {
        if (lane->n_move == lane->plan.cap.n_kvop)
            return false;
        lane->move[lane->n_move++] = (struct kvop){
            .src = kv->block[slot / len] * len + slot % len, .dst = kv->block[to / len] * len + to % len, .n = 1};
        kv->moved_in = lane->n_plan + 1;
    }
    seq_commit(lane, s, kv, 1);
    return true;
}

void seq_fork(struct lane *lane, const struct seq_kv *from, struct seq_kv *to)
{
    BUG_ON(from->moved_in > lane->n_plan || to->n_block);
    int32_t n = (from->n_computed + lane->pool.block_len - 1) / lane->pool.block_len;
    for (int32_t i = 0; i < n; i++) {
        kv_ref(&lane->pool, from->block[i]);
        to->block[i] = from->block[i];
    }
    to->n_block = n;
    to->n_computed = from->n_computed;
    to->n_published = from->n_published;
    to->published_id = from->published_id;
}

/* Moves into blocks that are given back must not run: the blocks may be another's by then. */
static void forget_moves(struct lane *lane, const struct seq_kv *kv)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < lane->n_move; i++) {
        bool mine = false;
        for (int32_t b = 0; b < kv->n_block; b++)
            mine |= lane->move[i].dst / lane->pool.block_len == kv->block[b];
        if (!mine)
            lane->move[kept++] = lane->move[i];
    }
    lane->n_move = kept;
}

void seq_trim(struct lane *lane, struct seq_kv *kv, int32_t n_slot)
{
    int32_t len = lane->pool.block_len, need = (kv->n_computed + n_slot + len - 1) / len;
    while (kv->n_block > need)
        kv_unref(&lane->pool, kv->block[--kv->n_block]);
}

void seq_give_back(struct lane *lane, struct seq_kv *kv)
{
    if (kv->moved_in > lane->n_plan)
        forget_moves(lane, kv);
    kv->moved_in = 0;
    while (kv->n_block > 0)
        kv_unref(&lane->pool, kv->block[--kv->n_block]);
    kv->n_computed = 0;
    kv->n_published = 0;
}

void seq_release(struct engine *eng, struct seq *s)
{
    seq_give_back(&eng->target, &s->kv);
    seq_give_back(&eng->draft, &s->draft_kv);
}
