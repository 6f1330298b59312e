/* The law on the device: the processors of kernels/law.c in the same order, by the same rules; see there and plan.h for
 * what each means. One block a row; its scores stay in global memory, which for one row is cache. */
#include "readouts.h"

#include "dev.cuh"
#include "select.cuh"

enum { LAW_THREADS = 512 };
constexpr float UNDERFLOW = -87; /* e^x counts as 0 from here down: VOCAB_EXP_LEAST of vocab.h */

struct law_smem {
    struct select_smem select;
    uint64_t scratch[DEV_WARP];
};

struct row { /* what a block works on */
    const struct readout_args *a;
    struct law_row at;
    struct law law;
    float *score;
    struct law_smem *s;
    int32_t n;
};

/* ---- Logits, biased, masked and penalised ---- */

DEV int32_t path_len(const struct law_row *at)
{
    return at->n_chain + dev_popc(at->vis);
}

/* The i-th token between what the law has counted and the row, its own included. */
DEV int32_t path_tok(const struct readout_args *a, const struct law_row *at, int32_t i)
{
    if (i < at->n_chain)
        return a->tok[at->chain0 + i];
    uint64_t bits = at->vis;
    for (int32_t k = i - at->n_chain; k > 0; k--)
        bits &= bits - 1;
    int b = dev_lowest_bit(bits);
    return b < at->n_held ? a->held[at->held0 + b].tok : a->tok[at->tree0 + b - at->n_held];
}

DEV int32_t path_count(const struct readout_args *a, const struct law_row *at, int32_t n, int32_t tok)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        count += path_tok(a, at, i) == tok;
    return count;
}

DEV bool law_has_token(const struct readout_args *a, const struct law *l, int32_t tok)
{
    int32_t lo = l->tok0, hi = l->tok0 + l->n_tok;
    while (lo < hi) {
        int32_t mid = (lo + hi) / 2;
        if (a->law_tok[mid].tok < tok)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < l->tok0 + l->n_tok && a->law_tok[lo].tok == tok;
}

DEV float penalise(const struct law *l, float x, int32_t n_prompt, int32_t n_output)
{
    if (n_prompt + n_output > 0)
        x = x > 0 ? x / l->repetition : x * l->repetition;
    if (n_output > 0)
        x -= dev_mul(l->frequency, (float)n_output) + l->presence;
    return x;
}

/* Every token is touched by one thread: those of the law's list, then those of the path alone at their first place. */
DEV void row_penalise(struct row *r)
{
    const struct law *l = &r->law;
    if (l->repetition == 1 && l->frequency == 0 && l->presence == 0)
        return;
    int32_t n_path = path_len(&r->at);
    for (int32_t i = l->tok0 + threadIdx.x; i < l->tok0 + l->n_tok; i += blockDim.x) {
        struct law_tok t = r->a->law_tok[i];
        r->score[t.tok] =
            penalise(l, r->score[t.tok], t.n_prompt, t.n_output + path_count(r->a, &r->at, n_path, t.tok));
    }
    for (int32_t i = threadIdx.x; i < n_path; i += blockDim.x) {
        int32_t tok = path_tok(r->a, &r->at, i);
        if (tok >= 0 && !path_count(r->a, &r->at, i, tok) && !law_has_token(r->a, l, tok))
            r->score[tok] = penalise(l, r->score[tok], 0, path_count(r->a, &r->at, n_path, tok));
    }
}

DEV void row_adjust(struct row *r)
{
    const float *logits = r->a->logits + (int64_t)r->at.logit * r->n;
    const uint32_t *mask = r->at.mask < 0 ? nullptr : r->a->mask + (int64_t)r->at.mask * ((r->n + 31) / 32);
    for (int32_t t = threadIdx.x; t < r->n; t += blockDim.x)
        r->score[t] = !mask || (mask[t >> 5] >> (t & 31) & 1) ? logits[t] : -INFINITY;
    dev_block_sync();
    for (int32_t i = r->law.tok0 + threadIdx.x; i < r->law.tok0 + r->law.n_tok; i += blockDim.x)
        r->score[r->a->law_tok[i].tok] += r->a->law_tok[i].bias;
    dev_block_sync();
    for (int32_t i = r->law.ban0 + threadIdx.x; i < r->law.ban0 + r->law.n_ban; i += blockDim.x)
        r->score[r->a->ban[i]] = -INFINITY;
    dev_block_sync();
    row_penalise(r);
    dev_block_sync();
}

/* ---- Scores ---- */

/* The key of the largest element, 0 when there is none above -inf; NaN is nothing. */
DEV uint64_t row_greatest(const float *x, int32_t n, uint64_t *scratch)
{
    uint64_t best = 0;
    for (int32_t t = threadIdx.x; t < n; t += blockDim.x) {
        uint64_t key = x[t] > -INFINITY ? select_key(x[t], t) : 0;
        best = key > best ? key : best;
    }
    return dev_block_greatest(best, scratch);
}

/* Shifted so that the largest is 0, and divided by the temperature; -inf from where p is 0. */
DEV void row_scale(struct row *r, float top, int32_t argmax)
{
    float inv_t = fminf(1 / r->law.temperature, 1e30f);
    for (int32_t t = threadIdx.x; t < r->n; t += blockDim.x) {
        float x = (r->score[t] - top) * inv_t;
        if (r->law.temperature == 0)
            x = t == argmax ? 0 : -INFINITY;
        r->score[t] = x > UNDERFLOW ? x : -INFINITY;
    }
    dev_block_sync();
}

/* ---- Truncation ---- */

/* Sums over the support: of p = exp(score), and of p * -score, from which entropies follow. */
DEV struct totals row_totals(struct row *r)
{
    uint64_t n = 0, a = 0, b = 0;
    for (int32_t t = threadIdx.x; t < r->n; t += blockDim.x) {
        float x = r->score[t];
        if (!(x > -INFINITY))
            continue;
        float p = dev_exp(x);
        n++;
        a += select_weight(p);
        b += select_weight(p * -x);
    }
    return {dev_block_add(n, r->s->scratch), dev_block_add(a, r->s->scratch), dev_block_add(b, r->s->scratch)};
}

/* Entropy in nats of p / mass, if these are its totals and the mass's. */
DEV double entropy_of(struct totals part, double mass)
{
    return ((double)part.b + (double)part.a * log(mass / SELECT_ONE)) / mass;
}

/* Keeps what `kept(t, score)` says. */
template <class Kept> DEV void row_keep(struct row *r, Kept kept)
{
    for (int32_t t = threadIdx.x; t < r->n; t += blockDim.x)
        if (r->score[t] > -INFINITY && !kept(t, r->score[t]))
            r->score[t] = -INFINITY;
    dev_block_sync();
}

/* Down the order of score until `over`; keeps the token at which it holds, or with `exclusive` those before. */
template <class Over> DEV void row_keep_likeliest(struct row *r, bool weighs, bool exclusive, Over over)
{
    const float *score = r->score;
    struct selected end = select_first(
        &r->s->select, r->n,
        [=](int32_t t, uint64_t *key, uint64_t *a, uint64_t *b) {
            float x = score[t];
            if (!(x > -INFINITY))
                return false;
            *key = select_key(x, t);
            float p = weighs ? dev_exp(x) : 0;
            *a = select_weight(p);
            *b = select_weight(p * -x);
            return true;
        },
        weighs, over);
    if (end.hi)
        row_keep(
            r, [=](int32_t t, float x) { return exclusive ? select_key(x, t) > end.hi : select_key(x, t) >= end.lo; });
}

DEV void keep_top_k(struct row *r, int32_t k)
{
    row_keep_likeliest(r, false, false, [=](struct totals all) { return all.n >= (uint64_t)k; });
}

DEV void keep_top_p(struct row *r)
{
    uint64_t need = (uint64_t)ceil((double)r->law.top_p * (double)row_totals(r).a);
    row_keep_likeliest(r, true, false, [=](struct totals all) { return all.a >= need; });
}

DEV void keep_typical(struct row *r)
{
    struct totals all = row_totals(r);
    const float *score = r->score;
    uint64_t need = (uint64_t)ceil((double)r->law.typical_p * (double)all.a);
    /* -ln p - entropy, with ln p = score - ln mass */
    float shift = (float)(log((double)all.a / SELECT_ONE) - entropy_of(all, (double)all.a));
    struct selected end = select_first(
        &r->s->select, r->n,
        [=](int32_t t, uint64_t *key, uint64_t *a, uint64_t *b) {
            *key = select_key(-fabsf(shift - score[t]), t);
            *a = select_weight(dev_exp(score[t]));
            *b = 0;
            return score[t] > -INFINITY;
        },
        true, [=](struct totals part) { return part.a >= need; });
    if (end.hi)
        row_keep(r, [=](int32_t t, float x) { return select_key(-fabsf(shift - x), t) >= end.lo; });
}

DEV void keep_top_h(struct row *r)
{
    bool partial = r->law.top_h_mode == TOP_H_PARTIAL;
    if (partial)
        keep_top_k(r, r->law.top_h_n);
    struct totals all = row_totals(r);
    double mass = (double)all.a, limit = (double)r->law.top_h * entropy_of(all, mass) + 1e-12;
    row_keep_likeliest(r, true, true, [=](struct totals part) {
        double entropy = entropy_of(part, mass);
        if (!partial)
            entropy = log((double)part.a / mass) + entropy * mass / (double)part.a;
        return part.n > 1 && entropy > limit;
    });
}

DEV void row_truncate(struct row *r)
{
    const struct law *l = &r->law;
    if (l->top_k > 0)
        keep_top_k(r, l->top_k);
    if (l->top_p < 1)
        keep_top_p(r);
    if (l->min_p > 0) {
        float least = l->min_p; /* the likeliest has exp(score) 1 */
        row_keep(r, [=](int32_t t, float x) { return dev_exp(x) >= least; });
    }
    if (l->typical_p < 1)
        keep_typical(r);
    if (l->top_h > 0)
        keep_top_h(r);
}

/* ---- Kernels ---- */

KERNEL __launch_bounds__(LAW_THREADS, 1) k_law(struct readout_args a)
{
    SMEM_DYN(law_smem, s);
    struct row r = {&a, a.law_row[blockIdx.x], {}, a.score + (int64_t)blockIdx.x * a.n_vocab, s, a.n_vocab};
    r.law = a.law[r.at.law];
    row_adjust(&r);
    uint64_t best = row_greatest(r.score, r.n, s->scratch);
    struct law_state state = {-1, 0};
    if (best && select_value(best >> 32) < INFINITY) {
        state.argmax = select_id(best);
        row_scale(&r, select_value(best >> 32), state.argmax);
        if (r.law.temperature > 0)
            row_truncate(&r);
        state.mass = (float)((double)row_totals(&r).a / SELECT_ONE);
    }
    if (threadIdx.x == 0)
        a.state[blockIdx.x] = state;
}

/* logsumexp, and the entropy of softmax(logits). */
KERNEL __launch_bounds__(LAW_THREADS) k_raw(struct readout_args a)
{
    SMEM_DYN(law_smem, s);
    int32_t logit = a.raw_logit[blockIdx.x];
    const float *x = a.logits + (int64_t)logit * a.n_vocab;
    uint64_t best = row_greatest(x, a.n_vocab, s->scratch), mass = 0, spread = 0;
    float top = best ? select_value(best >> 32) : 0;
    for (int32_t t = threadIdx.x; t < a.n_vocab; t += blockDim.x) {
        float d = x[t] - top;
        if (!(d > UNDERFLOW))
            continue;
        mass += select_weight(dev_exp(d));
        spread += select_weight(dev_exp(d) * -d);
    }
    struct totals all = {0, dev_block_add(mass, s->scratch), dev_block_add(spread, s->scratch)};
    if (threadIdx.x == 0)
        a.raw[logit] =
            best ? raw_state{(float)(top + log((double)all.a / SELECT_ONE)), (float)entropy_of(all, (double)all.a)}
                 : raw_state{-INFINITY, 0};
}

void readouts_law(const struct readout_args *a, struct CUstream_st *stream)
{
    if (a->n_law_row)
        LAUNCH(k_law, a->n_law_row, LAW_THREADS, sizeof(struct law_smem), stream, *a);
}

void readouts_raw(const struct readout_args *a, struct CUstream_st *stream)
{
    if (a->n_raw)
        LAUNCH(k_raw, a->n_raw, LAW_THREADS, sizeof(struct law_smem), stream, *a);
}
