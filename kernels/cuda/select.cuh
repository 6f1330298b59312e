/* Selection by a block, for law.cu and readouts.cu: where, going down the vocabulary in order of a key, running totals
 * first satisfy a condition. A radix search (8 bits of the key a pass) over histograms of counts and two weights;
 * nothing is sorted or moved, and integer sums make the answer independent of the order of threads. */
#ifndef GALLEY_CUDA_SELECT_CUH
#define GALLEY_CUDA_SELECT_CUH

#include "dev.cuh"

enum { SELECT_BINS = 256 };

constexpr float SELECT_ONE = 0x1p44f; /* the weight 1: leaves room for 2^20 tokens of it */

DEV uint64_t select_weight(float w) /* 0 <= w <= 1 */
{
    return (uint64_t)(w * SELECT_ONE);
}

/* Floats as integers in the same order; -inf and what is larger are above 0. */
DEV uint32_t select_order(float x)
{
    uint32_t u = dev_f32_bits(x);
    return u & 0x80000000 ? ~u : u | 0x80000000;
}

DEV float select_value(uint32_t order)
{
    return dev_bits_f32(order & 0x80000000 ? order & 0x7fffffff : ~order);
}

/* Larger first, and the lower id among equals: every key differs. */
DEV uint64_t select_key(float x, int32_t id)
{
    return (uint64_t)select_order(x) << 32 | (uint32_t)~id;
}

DEV int32_t select_id(uint64_t key)
{
    return (int32_t) ~(uint32_t)key;
}

struct totals {
    uint64_t n, a, b;
};

struct select_smem {
    uint64_t n[SELECT_BINS], a[SELECT_BINS], b[SELECT_BINS];
    int found;           /* bin, or -1: the condition never holds */
    struct totals above; /* of all keys larger than the bin's */
};

struct selected {    /* the key at which the condition first holds, as the range that only it is in */
    uint64_t lo, hi; /* lo 0, hi 0: it never does */
};

/* Adds a warp's elements to the bins, one lane for all that share a bin: logits crowd into few. */
DEV void select_count(struct select_smem *s, int bin, uint64_t a, uint64_t b, bool weighs DEV_AT)
{
    int lane = threadIdx.x % DEV_WARP;
    for (uint32_t todo = dev_ballot(bin >= 0 DEV_HERE); todo;) {
        int leader = dev_lowest_bit(todo), common = dev_shfl(bin, leader DEV_HERE);
        uint32_t same = dev_ballot(bin == common DEV_HERE);
        uint64_t sum_a = 0, sum_b = 0;
        if (weighs) {
            sum_a = dev_warp_add(bin == common ? a : 0 DEV_HERE);
            sum_b = dev_warp_add(bin == common ? b : 0 DEV_HERE);
        }
        if (lane == leader) {
            dev_atomic_add(&s->n[common], (uint64_t)dev_popc(same));
            dev_atomic_add(&s->a[common], sum_a);
            dev_atomic_add(&s->b[common], sum_b);
        }
        todo &= ~same;
    }
}

/* By warp 0: the first bin from the top at which `over` holds, totals of larger keys being `above`. */
template <class Over> DEV void select_bin(struct select_smem *s, struct totals above, Over over DEV_AT)
{
    enum { PER_LANE = SELECT_BINS / DEV_WARP };
    int lane = threadIdx.x, top = SELECT_BINS - 1 - lane * PER_LANE;
    struct totals own = {0, 0, 0};
    for (int i = top; i > top - PER_LANE; i--) {
        own.n += s->n[i];
        own.a += s->a[i];
        own.b += s->b[i];
    }
    struct totals sum = own;
    for (int d = 1; d < DEV_WARP; d <<= 1) {
        uint64_t n = dev_shfl_up(sum.n, d DEV_HERE), a = dev_shfl_up(sum.a, d DEV_HERE),
                 b = dev_shfl_up(sum.b, d DEV_HERE);
        if (lane >= d) {
            sum.n += n;
            sum.a += a;
            sum.b += b;
        }
    }
    struct totals before = {above.n + sum.n - own.n, above.a + sum.a - own.a, above.b + sum.b - own.b};
    int found = -1;
    for (int i = top; i > top - PER_LANE && found < 0; i--) {
        struct totals with = {before.n + s->n[i], before.a + s->a[i], before.b + s->b[i]};
        if (s->n[i] && over(with))
            found = i;
        else
            before = with;
    }
    uint32_t lanes = dev_ballot(found >= 0 DEV_HERE);
    if (lane == (lanes ? dev_lowest_bit(lanes) : 0)) {
        s->found = found;
        s->above = before;
    }
}

/* `item(t, &key, &a, &b)` says whether token t takes part, its key (select_key) and its weights; `over(totals)` whether
 * the totals down to and with a key are enough: once true, true for all that follow. `weighs`: over looks at a or b. */
template <class Item, class Over>
DEV struct selected select_first(struct select_smem *s, int32_t n, Item item, bool weighs, Over over DEV_AT)
{
    struct totals above = {0, 0, 0};
    uint64_t prefix = 0;
    for (int shift = 56;; shift -= 8) {
        for (int i = threadIdx.x; i < SELECT_BINS; i += blockDim.x)
            s->n[i] = s->a[i] = s->b[i] = 0;
        dev_block_sync(DEV_ONLY_HERE);
        for (int32_t t0 = 0; t0 < n; t0 += blockDim.x) { /* every lane takes part to the end */
            int32_t t = t0 + threadIdx.x;
            uint64_t key = 0, a = 0, b = 0;
            bool in = t < n && item(t, &key, &a, &b) && (shift == 56 || key >> shift >> 8 == prefix);
            select_count(s, in ? (int)(key >> shift & 0xff) : -1, a, b, weighs DEV_HERE);
        }
        dev_block_sync(DEV_ONLY_HERE);
        if (threadIdx.x < DEV_WARP)
            select_bin(s, above, over DEV_HERE);
        dev_block_sync(DEV_ONLY_HERE);
        int bin = s->found;
        above = s->above;
        if (bin < 0)
            return {0, 0};
        prefix = prefix << 8 | (uint64_t)bin;
        bool only = s->n[bin] == 1;
        dev_block_sync(DEV_ONLY_HERE);
        if (only || shift == 0)
            return {prefix << shift, prefix << shift | (((uint64_t)1 << shift) - 1)};
    }
}

#endif
