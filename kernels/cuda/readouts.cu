/* What a step returns of rows of logits. One block a readout; k_law and k_raw have run. Results are those of
 * kernels/readout.c. */
#include "readouts.h"

#include "dev.cuh"
#include "select.cuh"

enum { READ_THREADS = 512, SORT_MAX = 256 }; /* SORT_MAX: of PLAN_MAX_TOPK, and of PLAN_MAX_LIST and two draws */

static_assert((int)PLAN_MAX_TOPK <= (int)SORT_MAX && PLAN_MAX_LIST + 2 <= (int)SORT_MAX, "a list fits");

struct read_smem {
    struct select_smem select;
    uint64_t scratch[DEV_WARP];
    uint64_t key[SORT_MAX]; /* what is sorted */
    uint32_t rank[SORT_MAX + 1];
    uint32_t n_key;
    uint32_t skip[1]; /* last, with n_vocab bits: tokens on a PROBE's list */
};

struct reader { /* what a block works on */
    const struct readout_args *a;
    struct read_job job;
    const float *logits, *score;
    struct law_state state;
    struct read_smem *s;
    float *f;
    int32_t *i;
    int32_t n_vocab;
};

DEV float p_of(const struct reader *r, int32_t tok)
{
    return r->state.argmax < 0 ? 0 : dev_exp(r->score[tok]) / r->state.mass;
}

/* ---- Sorting up to 256 keys in shared memory, largest first (bitonic) ---- */

DEV void sort_keys(struct read_smem *s, int n)
{
    for (int i = n + threadIdx.x; i < SORT_MAX; i += blockDim.x)
        s->key[i] = 0;
    dev_block_sync();
    for (int run = 2; run <= SORT_MAX; run *= 2)
        for (int step = run / 2; step > 0; step /= 2) {
            for (int i = threadIdx.x; i < SORT_MAX; i += blockDim.x) {
                int other = i ^ step;
                uint64_t x = s->key[i], y = s->key[other];
                if (other > i && (i & run ? x > y : x < y)) {
                    s->key[i] = y;
                    s->key[other] = x;
                }
            }
            dev_block_sync();
        }
}

/* ---- Draws ---- */

/* argmax of score + noise over the support, but for the tokens in skip; -1 when nothing is left. */
DEV int32_t draw(struct reader *r, enum noise_stream stream, const uint32_t *skip)
{
    const struct law_row *at = &r->a->law_row[r->job.law_row];
    uint64_t noise_key = r->a->law[at->law].noise_key, best = 0;
    int32_t first = r->state.argmax;
    if (first < 0)
        return -1;
    if (!skip || !(skip[first >> 5] >> (first & 31) & 1)) /* every thread: it rules most others out */
        best = select_key(r->score[first] + rng_token_gumbel(noise_key, at->position, stream, first), first);
    for (int32_t group = threadIdx.x; group * 4 < r->n_vocab; group += blockDim.x) {
        uint32_t noise[4], ctr[4] = {(uint32_t)group, (uint32_t)at->position, (uint32_t)stream, 0};
        bool drawn = false;
        for (int32_t t = group * 4; t < group * 4 + 4 && t < r->n_vocab; t++) {
            float x = r->score[t];
            if (!(x > -INFINITY) || (best && x + RNG_GUMBEL_MAX < select_value(best >> 32)) ||
                (skip && (skip[t >> 5] >> (t & 31) & 1)))
                continue;
            if (!drawn)
                rng_philox(noise_key, ctr, noise);
            drawn = true;
            uint64_t key = select_key(x + rng_gumbel(noise[t & 3]), t);
            best = key > best ? key : best;
        }
    }
    best = dev_block_greatest(best, r->s->scratch);
    return best ? select_id(best) : -1;
}

/* ---- Ranks ---- */

/* s->rank[j] = tokens with x larger than x[tok[j]], for n tokens; tok -1 gives 0. Sorts the values, then each token of
 * the vocabulary looks for its place among them. */
template <class Tok> DEV void rank_tokens(struct reader *r, const float *x, int n, Tok tok)
{
    struct read_smem *s = r->s;
    for (int j = threadIdx.x; j < n; j += blockDim.x)
        s->key[j] = (uint64_t)select_order(tok(j) < 0 ? INFINITY : x[tok(j)]) << 32 | (uint32_t)j;
    for (int j = threadIdx.x; j <= n; j += blockDim.x)
        s->rank[j] = 0;
    sort_keys(s, n);
    for (int32_t t = threadIdx.x; t < r->n_vocab; t += blockDim.x) {
        uint32_t order = select_order(x[t]);
        int lo = 0, hi = n; /* the first place whose value is smaller */
        while (lo < hi) {
            int mid = (lo + hi) / 2;
            if (s->key[mid] >> 32 < order)
                hi = mid;
            else
                lo = mid + 1;
        }
        if (lo < n && x[t] > -INFINITY)
            dev_atomic_add(&s->rank[lo], 1u);
    }
    dev_block_sync();
    uint64_t sum = 0;
    int own = threadIdx.x < (unsigned)n ? (int)(uint32_t)s->key[threadIdx.x] : -1;
    for (int j = 0; own >= 0 && j <= (int)threadIdx.x; j++)
        sum += s->rank[j];
    dev_block_sync();
    if (own >= 0)
        s->rank[own] = (uint32_t)sum;
    dev_block_sync();
}

/* ---- The readouts ---- */

DEV void read_sample(struct reader *r)
{
    int32_t tok = draw(r, NOISE_TARGET, nullptr);
    bool describes = tok >= 0 && r->job.n == 1;
    if (describes)
        rank_tokens(r, r->logits, 1, [=](int j) { return tok; });
    if (threadIdx.x == 0) {
        r->i[0] = tok;
        r->i[1] = describes ? (int32_t)r->s->rank[0] : 0;
        r->f[0] = describes ? dev_log(p_of(r, tok)) : 0;
        r->f[1] = describes ? r->logits[tok] - r->a->raw[r->job.logit].lse : 0;
    }
}

/* The n likeliest into s->key, sorted; returns how many there are. */
DEV int top_tokens(struct reader *r, const float *x, int n)
{
    struct read_smem *s = r->s;
    if (threadIdx.x == 0)
        s->n_key = 0;
    struct selected end = select_first(
        &s->select, r->n_vocab,
        [=](int32_t t, uint64_t *key, uint64_t *a, uint64_t *b) {
            *key = select_key(x[t], t);
            *a = *b = 0;
            return x[t] > -INFINITY;
        },
        false, [=](struct totals all) { return all.n >= (uint64_t)n; });
    for (int32_t t = threadIdx.x; t < r->n_vocab; t += blockDim.x)
        if (x[t] > -INFINITY && select_key(x[t], t) >= end.lo)
            s->key[dev_atomic_add(&s->n_key, 1u)] = select_key(x[t], t);
    dev_block_sync();
    int found = (int)s->n_key;
    sort_keys(s, found);
    return found;
}

/* In nats: ln of the mass plus the mean of -score. */
DEV float law_entropy(struct reader *r)
{
    uint64_t sum = 0;
    for (int32_t t = threadIdx.x; t < r->n_vocab; t += blockDim.x)
        if (r->score[t] > -INFINITY)
            sum += select_weight(dev_exp(r->score[t]) * -r->score[t]);
    return (float)((double)dev_block_add(sum, r->s->scratch) / SELECT_ONE) / r->state.mass + dev_log(r->state.mass);
}

DEV void read_topk(struct reader *r)
{
    int n = r->job.n;
    bool none = !r->job.raw && r->state.argmax < 0;
    const float *x = r->job.raw ? r->logits : r->score;
    struct raw_state raw = r->job.raw ? r->a->raw[r->job.logit] : raw_state{0, 0};
    if (!r->job.raw && !none)
        raw.entropy = law_entropy(r);
    int found = none ? 0 : top_tokens(r, x, n);
    float shift = r->job.raw ? raw.lse : dev_log(r->state.mass);
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        r->i[j] = j < found ? select_id(r->s->key[j]) : -1;
        r->f[j] = j < found ? select_value(r->s->key[j] >> 32) - shift : -INFINITY;
    }
    if (threadIdx.x == 0) {
        r->f[n] = raw.lse;
        r->f[n + 1] = raw.entropy;
    }
}

DEV void read_logprob(struct reader *r)
{
    const int32_t *list = r->a->list + r->job.list0;
    const float *x = r->job.raw ? r->logits : r->score;
    bool none = !r->job.raw && r->state.argmax < 0;
    float shift = r->job.raw ? r->a->raw[r->job.logit].lse : dev_log(r->state.mass);
    if (!none)
        rank_tokens(r, x, r->job.n, [=](int j) { return list[j]; });
    for (int j = threadIdx.x; j < r->job.n; j += blockDim.x) {
        r->f[j] = none ? -INFINITY : x[list[j]] - shift;
        r->i[j] = none ? 0 : (int32_t)r->s->rank[j];
    }
}

/* The mass off the list, summed over its tokens: 1 minus the mass on the list would cancel. */
DEV float mass_off_list(struct reader *r)
{
    float sum = 0;
    for (int32_t t = threadIdx.x; t < r->n_vocab; t += blockDim.x)
        if (!(r->s->skip[t >> 5] >> (t & 31) & 1))
            sum += p_of(r, t);
    return dev_block_sum(sum, (float *)r->s->scratch);
}

DEV void read_probe(struct reader *r)
{
    int n = r->job.n;
    const int32_t *list = r->a->list + r->job.list0;
    for (int32_t w = threadIdx.x; w < (r->n_vocab + 31) / 32; w += blockDim.x)
        r->s->skip[w] = 0;
    dev_block_sync();
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        dev_atomic_add(&r->s->skip[list[j] >> 5], 1u << (list[j] & 31)); /* distinct tokens: adding is setting */
        r->f[j] = p_of(r, list[j]);
    }
    dev_block_sync();
    float off = r->state.argmax < 0 ? 0 : mass_off_list(r);
    int32_t drawn[2] = {draw(r, NOISE_TARGET, nullptr), draw(r, NOISE_OFF_LIST, r->s->skip)};
    if (threadIdx.x == 0) {
        r->f[n] = off;
        r->i[0] = drawn[0];
        r->i[1] = drawn[1];
    }
    if (!r->job.raw)
        return;
    int32_t target = drawn[0], other = drawn[1];
    auto token = [=](int j) { return j < n ? list[j] : j == n ? target : other; };
    rank_tokens(r, r->logits, n + 2, token);
    for (int j = threadIdx.x; j < n + 2; j += blockDim.x) {
        int32_t tok = token(j);
        r->f[n + 1 + j] = tok < 0 ? 0 : r->logits[tok] - r->a->raw[r->job.logit].lse;
        r->i[2 + j] = tok < 0 ? 0 : (int32_t)r->s->rank[j];
    }
}

KERNEL __launch_bounds__(READ_THREADS) k_read(struct readout_args a)
{
    SMEM_DYN(read_smem, s);
    struct reader r = {&a, a.job[blockIdx.x], nullptr, nullptr, {-1, 1}, s, nullptr, nullptr, a.n_vocab};
    r.logits = a.logits + (int64_t)r.job.logit * a.n_vocab;
    if (r.job.law_row >= 0) {
        r.score = a.score + (int64_t)r.job.law_row * a.n_vocab;
        r.state = a.state[r.job.law_row];
    }
    r.f = a.f + r.job.f0;
    r.i = a.i + r.job.i0;
    if (r.job.kind == READ_SAMPLE)
        read_sample(&r);
    else if (r.job.kind == READ_TOPK)
        read_topk(&r);
    else if (r.job.kind == READ_LOGPROB)
        read_logprob(&r);
    else
        read_probe(&r);
}

void readouts_read(const struct readout_args *a, struct CUstream_st *stream)
{
    size_t smem_bytes = sizeof(struct read_smem) + (size_t)(a->n_vocab + 31) / 32 * sizeof(uint32_t);
    if (a->n_job)
        LAUNCH(k_read, a->n_job, READ_THREADS, smem_bytes, stream, *a);
}
