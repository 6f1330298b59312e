/* The worker pool: every worker runs once a region, barriers separate phases, pools do not disturb each other. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "pool.h"
#include "../suite.h"

enum { MAX_WORKER = 7 };

struct phases {
    struct pool *pool;
    int n_worker, n_phase;
    int count[2][MAX_WORKER]; /* plain memory: the barrier must make it visible */
    atomic_int n_wrong;
};

/* Each phase, every worker adds its neighbours' values of the phase before; all must be equal to the phase number. */
static void run_phases(void *arg, int worker)
{
    struct phases *f = arg;
    for (int phase = 1; phase <= f->n_phase; phase++) {
        f->count[phase & 1][worker] = phase;
        pool_barrier(f->pool);
        for (int i = 0; i < f->n_worker; i++)
            if (f->count[phase & 1][i] != phase)
                atomic_fetch_add(&f->n_wrong, 1);
        pool_barrier(f->pool);
    }
}

START_TEST(barriers_separate_phases)
{
    struct err e = {0};
    struct phases f = {.n_worker = _i, .n_phase = 3000};
    ck_assert_msg(!pool_create(&f.pool, _i, &e), "%s", e.msg);
    ck_assert_int_eq(pool_size(f.pool), _i);
    pool_run(f.pool, run_phases, &f);
    ck_assert_int_eq(f.n_wrong, 0);
    pool_free(f.pool);
}
END_TEST

struct visits {
    int n[MAX_WORKER];
};

static void visit(void *arg, int worker)
{
    ((struct visits *)arg)->n[worker]++;
}

static void many_joins(int n_worker, int n_join)
{
    struct err e = {0};
    struct pool *p;
    struct visits v = {0};
    ck_assert_msg(!pool_create(&p, n_worker, &e), "%s", e.msg);
    for (int i = 1; i <= n_join; i++) {
        pool_run(p, visit, &v);
        for (int w = 0; w < n_worker; w++)
            ck_assert_int_eq(v.n[w], i);
        if (i % 1000 == 0) /* let the workers fall asleep now and then */
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    pool_free(p);
}

START_TEST(every_worker_runs_each_region_once)
{
    many_joins(_i, 5000);
}
END_TEST

static void *joins_main(void *arg)
{
    many_joins(3, 3000);
    return arg;
}

START_TEST(two_pools_at_once)
{
    pthread_t t;
    ck_assert_int_eq(pthread_create(&t, NULL, joins_main, NULL), 0);
    many_joins(3, 3000);
    pthread_join(t, NULL);
}
END_TEST

START_TEST(a_pool_can_come_and_go)
{
    struct err e = {0};
    for (int i = 0; i < 50; i++) {
        struct pool *p;
        ck_assert_msg(!pool_create(&p, 1 + i % 4, &e), "%s", e.msg);
        pool_free(p);
    }
    struct pool *none;
    ck_assert_int_eq(pool_create(&none, 0, &e), -ERR_INVALID);
    ck_assert_ptr_null(none);
    pool_free(NULL);
}
END_TEST

struct masks {
    cpu_set_t mask[3];
};

static void read_mask(void *arg, int worker)
{
    struct masks *m = arg;
    CPU_ZERO(&m->mask[worker]);
    sched_getaffinity(0, sizeof m->mask[worker], &m->mask[worker]);
}

/* Every worker is where it was put while a region runs, and the caller is free again after it. */
START_TEST(workers_can_be_bound)
{
    struct err e = {0};
    struct pool *p;
    struct masks m;
    cpu_set_t own, one, none;
    int cpu = 0;
    CPU_ZERO(&own);
    sched_getaffinity(0, sizeof own, &own);
    while (!CPU_ISSET(cpu, &own))
        cpu++;
    CPU_ZERO(&none);
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ck_assert_msg(!pool_create(&p, 3, &e), "%s", e.msg);
    ck_assert_msg(!pool_bind(p, 0, &one, sizeof one, &e), "%s", e.msg);
    ck_assert_msg(!pool_bind(p, 2, &one, sizeof one, &e), "%s", e.msg);
    for (int i = 0; i < 3; i++) {
        pool_run(p, read_mask, &m);
        ck_assert(CPU_EQUAL(&m.mask[0], &one) && CPU_EQUAL(&m.mask[2], &one) && CPU_EQUAL(&m.mask[1], &own));
        read_mask(&m, 0);
        ck_assert(CPU_EQUAL(&m.mask[0], &own));
    }
    ck_assert_int_eq(pool_bind(p, 1, &none, sizeof none, &e), -ERR_IO);
    pool_free(p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("pool");
    tcase_add_loop_test(tc, barriers_separate_phases, 1, MAX_WORKER + 1);
    tcase_add_loop_test(tc, every_worker_runs_each_region_once, 1, MAX_WORKER + 1);
    tcase_add_test(tc, two_pools_at_once);
    tcase_add_test(tc, a_pool_can_come_and_go);
    tcase_add_test(tc, workers_can_be_bound);
    return suite_run(tc);
}
