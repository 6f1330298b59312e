/* What the ranks of several GPUs send each other in a pass: sums of the residual stream, parts of logits. */
#include "cuda.h"
#include "ranks.h"

static void keep_code(struct bmodel *m, int code)
{
    if (!m->comm_code)
        m->comm_code = code;
}

void cuda_sum_ranks(struct bmodel *m, float *x, int64_t n)
{
    const struct backend *b = m->b;
    float *gathered = m->pool.gathered;
    int32_t n_rank = b->n_rank;
    if (n_rank == 1)
        return;
    if (!gathered) {
        keep_code(m, b->comm_api->sum(b->comm, x, (size_t)n, b->stream));
        return;
    }
    struct comm_piece send[RANKS_MAX], recv[RANKS_MAX];
    for (int32_t q = 0; q < n_rank; q++) {
        send[q] = (struct comm_piece){x, (size_t)n};
        recv[q] = (struct comm_piece){gathered + q * n, (size_t)n};
    }
    keep_code(m, b->comm_api->exchange(b->comm, send, recv, b->stream));
    rows_sum(x, gathered, n_rank, n, b->stream);
}

int cuda_exchange_logits(struct bmodel *m, int32_t n_logit, struct err *e)
{
    const struct backend *b = m->b;
    const struct cuda_pool *pool = &m->pool;
    int32_t n_rank = b->n_rank, rank = m->shard.rank, n_vocab = m->d.n_vocab;
    int32_t n_own = readout_own_begin(n_logit, rank + 1, n_rank) - readout_own_begin(n_logit, rank, n_rank);
    struct comm_piece send[RANKS_MAX], recv[RANKS_MAX];
    int32_t begin[RANKS_MAX + 1];
    for (int32_t q = 0; q <= n_rank; q++)
        begin[q] = shard_vocab_begin(n_vocab, q, n_rank);
    for (int32_t q = 0; q < n_rank; q++) {
        int32_t row0 = readout_own_begin(n_logit, q, n_rank), row1 = readout_own_begin(n_logit, q + 1, n_rank);
        size_t n_slice = (size_t)m->shard.n_vocab;
        send[q] = (struct comm_piece){pool->slice + (size_t)row0 * n_slice, (size_t)(row1 - row0) * n_slice};
        recv[q] = (struct comm_piece){pool->score + (size_t)n_own * (size_t)begin[q],
                                      (size_t)n_own * (size_t)(begin[q + 1] - begin[q])};
    }
    keep_code(m, b->comm_api->exchange(b->comm, send, recv, b->stream));
    int code = 0;
    for (int32_t q = 0; !code && n_own && q < n_rank; q++) {
        size_t width = (size_t)(begin[q + 1] - begin[q]) * sizeof(float);
        code = b->api->copy_rows(pool->logits + begin[q], (size_t)n_vocab * sizeof(float), recv[q].data, width, width,
                                 (size_t)n_own, b->stream);
    }
    return cuda_check(b, code, "putting logits together", e);
}

int cuda_meet(struct bmodel *m, struct err *e)
{
    const struct backend *b = m->b;
    const struct cuda_pool *pool = &m->pool;
    struct comm_piece send[RANKS_MAX], recv[RANKS_MAX];
    for (int32_t q = 0; q < b->n_rank; q++) {
        send[q] = (struct comm_piece){pool->x, 1};
        recv[q] = (struct comm_piece){pool->logits + q, 1};
    }
    int rc = cuda_check(b, b->api->zero(pool->x, sizeof(float), b->stream), "meeting the other ranks", e);
    if (!rc)
        rc = cuda_comm_check(b, b->comm_api->sum(b->comm, pool->x, 1, b->stream), "meeting the other ranks", e);
    if (!rc)
        rc = cuda_comm_check(b, b->comm_api->exchange(b->comm, send, recv, b->stream), "meeting the other ranks", e);
    if (!rc)
        rc = cuda_check(b, b->api->stream_wait(b->stream), "meeting the other ranks", e);
    return rc ? rc : cuda_comm_check(b, b->comm_api->state(b->comm), "meeting the other ranks", e);
}
