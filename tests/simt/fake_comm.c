#include "fake_comm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_graph.h"

enum { MAX_RANK = 8, GONE = 3, TIMEOUT_MS = 240000 };

enum call { SUM, EXCHANGE };

struct group { /* owner: its ranks, the last of which frees it */
    int32_t n_rank, n_joined, n_left, n_here;
    long turn; /* counts meetings */
    bool aborted;
    struct { /* what the ranks brought to a meeting */
        enum call call;
        size_t n;
        float *x;
        const struct comm_piece *send;
    } at[MAX_RANK];
};

struct comm {
    struct group *group;
    int32_t rank;
};

struct fake_comm_faults fake_comm_faults;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all groups */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct group *opening; /* the id names it */
static bool released;
static long n_live;

void fake_comm_reset(void)
{
    if (n_live)
        abort();
    fake_comm_faults = (struct fake_comm_faults){0};
    released = false;
}

long fake_comm_live(void)
{
    pthread_mutex_lock(&lock);
    long n = n_live;
    pthread_mutex_unlock(&lock);
    return n;
}

void fake_comm_release(void)
{
    pthread_mutex_lock(&lock);
    released = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int find(struct err *e)
{
    return fake_comm_faults.missing ? err_set(e, ERR_NOTFOUND, "several GPUs need NCCL: the fake one is missing") : 0;
}

static int make_id(struct comm_id *out)
{
    pthread_mutex_lock(&lock);
    opening = calloc(1, sizeof *opening);
    memset(out, 0, sizeof *out);
    memcpy(out->bytes, &opening, sizeof opening);
    pthread_mutex_unlock(&lock);
    return 0;
}

static void wait_for_release(void)
{
    while (!released)
        pthread_cond_wait(&changed, &lock);
}

static int join(struct comm **out, const struct comm_id *id, int32_t n_rank, int32_t rank)
{
    struct group *g;
    memcpy(&g, id->bytes, sizeof g);
    pthread_mutex_lock(&lock);
    if (fake_comm_faults.never_joins && rank == fake_comm_faults.rank)
        wait_for_release();
    g->n_rank = n_rank;
    g->n_joined++;
    n_live++;
    pthread_cond_broadcast(&changed);
    while (g->n_joined < n_rank)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    *out = malloc(sizeof **out);
    **out = (struct comm){g, rank};
    return 0;
}

static void leave(struct comm *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&lock);
    struct group *g = c->group;
    bool last = ++g->n_left == g->n_rank;
    n_live--;
    pthread_mutex_unlock(&lock);
    if (last)
        free(g);
    free(c);
}

static void abort_group(struct comm *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&lock);
    c->group->aborted = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int state(struct comm *c)
{
    pthread_mutex_lock(&lock);
    bool aborted = c->group->aborted;
    pthread_mutex_unlock(&lock);
    return aborted ? GONE : 0;
}

/* ---- Meetings ---- */

static bool counts_down(struct comm *c, long *n)
{
    return c->rank == fake_comm_faults.rank && *n > 0 && --*n == 0;
}

/* Returns when all ranks have come, or the group is aborted: false then. */
static bool meet_locked(struct group *g)
{
    long turn = g->turn;
    if (++g->n_here == g->n_rank) {
        g->n_here = 0;
        g->turn++;
        pthread_cond_broadcast(&changed);
    }
    while (g->turn == turn && !g->aborted)
        pthread_cond_wait(&changed, &lock);
    return !g->aborted;
}

static void check_same(const struct group *g, int32_t rank)
{
    if (g->at[rank].call == g->at[0].call && (g->at[rank].call == EXCHANGE || g->at[rank].n == g->at[0].n))
        return;
    fprintf(stderr, "fake communicator: rank %d does call %d of %zu floats, rank 0 does call %d of %zu\n", rank,
            g->at[rank].call, g->at[rank].n, g->at[0].call, g->at[0].n);
    abort();
}

static void silence_locked(struct comm *c)
{
    if (!counts_down(c, &fake_comm_faults.silent_at))
        return;
    while (!c->group->aborted)
        pthread_cond_wait(&changed, &lock);
    if (fake_comm_faults.deaf)
        wait_for_release();
}

/* Brings what at[rank] says to the others; false: they do not come. */
static bool come(struct comm *c, enum call call, float *x, size_t n, const struct comm_piece *send)
{
    struct group *g = c->group;
    pthread_mutex_lock(&lock);
    silence_locked(c);
    g->at[c->rank].call = call;
    g->at[c->rank].x = x;
    g->at[c->rank].n = n;
    g->at[c->rank].send = send;
    bool all = !g->aborted && meet_locked(g);
    if (all)
        check_same(g, c->rank);
    pthread_mutex_unlock(&lock);
    return all;
}

/* Until the others have read what this rank brought. */
static void part(struct comm *c)
{
    pthread_mutex_lock(&lock);
    meet_locked(c->group);
    pthread_mutex_unlock(&lock);
}

struct summing {
    struct comm *c;
    float *x;
    size_t n;
};

static void run_sum(void *arg)
{
    const struct summing *a = arg;
    const struct group *g = a->c->group;
    if (!come(a->c, SUM, a->x, a->n, NULL))
        return;
    float *sum = malloc(a->n * sizeof *sum + 1);
    for (size_t i = 0; i < a->n; i++) {
        sum[i] = 0;
        for (int32_t q = 0; q < g->n_rank; q++)
            sum[i] += g->at[(q + (int32_t)(a->n / 64 % 7)) % g->n_rank].x[i];
    }
    part(a->c);
    memcpy(a->x, sum, a->n * sizeof *sum);
    free(sum);
}

struct exchanging {
    struct comm *c;
    struct comm_piece send[MAX_RANK], recv[MAX_RANK];
};

static void run_exchange(void *arg)
{
    const struct exchanging *a = arg;
    const struct group *g = a->c->group;
    if (!come(a->c, EXCHANGE, NULL, 0, a->send))
        return;
    for (int32_t q = 0; q < g->n_rank; q++) {
        const struct comm_piece *from = &g->at[q].send[a->c->rank], *to = &a->recv[q];
        if (from->n != to->n) {
            fprintf(stderr, "fake communicator: rank %d sends %zu floats to rank %d, which waits for %zu\n", q, from->n,
                    a->c->rank, to->n);
            abort();
        }
        memcpy(to->data, from->data, to->n * sizeof *to->data);
    }
    part(a->c);
}

static int queue(struct comm *c, struct CUstream_st *s, void (*run)(void *arg), void *arg, size_t arg_bytes)
{
    pthread_mutex_lock(&lock);
    bool fails = c->group->aborted || counts_down(c, &fake_comm_faults.fail_at);
    pthread_mutex_unlock(&lock);
    if (fails)
        return GONE;
    if (!fake_graph_record(s, run, arg, arg_bytes))
        run(arg);
    return 0;
}

static int sum(struct comm *c, float *x, size_t n, struct CUstream_st *s)
{
    struct summing a = {c, x, n};
    return queue(c, s, run_sum, &a, sizeof a);
}

static int exchange(struct comm *c, const struct comm_piece *send, const struct comm_piece *recv, struct CUstream_st *s)
{
    struct exchanging a = {.c = c};
    memcpy(a.send, send, (size_t)c->group->n_rank * sizeof *send);
    memcpy(a.recv, recv, (size_t)c->group->n_rank * sizeof *recv);
    return queue(c, s, run_exchange, &a, sizeof a);
}

static const char *error_text(int code)
{
    return code == GONE ? "the group was aborted" : "unknown";
}

#define TABLE(ms)                                                                                                      \
    {                                                                                                                  \
        .timeout_ms = ms, .find = find, .make_id = make_id, .join = join, .leave = leave, .abort = abort_group,        \
        .state = state, .sum = sum, .exchange = exchange, .error_text = error_text                                     \
    }

const struct comm_api fake_comm = TABLE(TIMEOUT_MS);

const struct comm_api *fake_comm_within(int32_t timeout_ms)
{
    static struct comm_api within = TABLE(0);
    within.timeout_ms = timeout_ms;
    return &within;
}
