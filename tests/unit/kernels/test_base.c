#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "err.h"
#include "mem.h"
#include "queue.h"
#include "rng.h"
#include "../suite.h"

START_TEST(philox_known_answers)
{
    /* Known answers published with the reference implementation (Random123, kat_vectors). */
    static const struct {
        uint64_t key;
        uint32_t ctr[4], out[4];
    } kat[] = {
        {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {0xffffffffffffffff,
         {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        rng_philox(kat[i].key, kat[i].ctr, out);
        ck_assert_mem_eq(out, kat[i].out, sizeof out);
    }
}
END_TEST

START_TEST(unit_and_gumbel_stay_finite)
{
    ck_assert(rng_unit(0) > 0 && rng_unit(UINT32_MAX) < 1);
    ck_assert(isfinite(rng_gumbel(0)) && isfinite(rng_gumbel(UINT32_MAX)));
    ck_assert(rng_gumbel(UINT32_MAX) < RNG_GUMBEL_MAX);
}
END_TEST

START_TEST(arena_survives_failing_allocations)
{
    for (long nth = 1; nth < 8; nth++) {
        struct arena a;
        arena_init(&a, 64);
        mem_fail_nth(nth);
        int n_null = 0;
        for (int i = 0; i < 8; i++) {
            char *p = arena_alloc(&a, 48);
            if (p)
                memset(p, 7, 48);
            else
                n_null++;
        }
        mem_fail_nth(0);
        ck_assert_int_eq(n_null, 1);
        arena_reset(&a);
        ck_assert_ptr_nonnull(arena_alloc(&a, 8));
        arena_free(&a);
    }
}
END_TEST

START_TEST(warm_arena_allocates_nothing)
{
    struct arena a;
    arena_init(&a, 4096);
    arena_alloc(&a, 100);
    arena_reset(&a);
    unsigned long before = mem_thread_count();
    for (int i = 0; i < 100; i++) {
        arena_alloc(&a, 1000);
        arena_reset(&a);
    }
    ck_assert_uint_eq(mem_thread_count(), before);
    arena_free(&a);
}
END_TEST

struct item {
    struct queue_node node;
    int producer, number;
};

enum { N_PRODUCER = 4, N_ITEM = 20000 };
static struct queue shared;

static void *produce(void *arg)
{
    struct item *it = arg;
    for (int i = 0; i < N_ITEM; i++)
        queue_push(&shared, &it[i].node);
    return NULL;
}

START_TEST(queue_keeps_each_producers_order)
{
    static struct item item[N_PRODUCER][N_ITEM];
    pthread_t th[N_PRODUCER];
    int next[N_PRODUCER] = {0}, total = 0;
    queue_init(&shared);
    for (int p = 0; p < N_PRODUCER; p++) {
        for (int i = 0; i < N_ITEM; i++)
            item[p][i] = (struct item){.producer = p, .number = i};
        pthread_create(&th[p], NULL, produce, item[p]);
    }
    while (total < N_PRODUCER * N_ITEM)
        for (struct queue_node *n = queue_drain(&shared); n; n = n->next) {
            struct item *it = container_of(n, struct item, node);
            ck_assert_int_eq(it->number, next[it->producer]++);
            total++;
        }
    for (int p = 0; p < N_PRODUCER; p++)
        pthread_join(th[p], NULL);
}
END_TEST

START_TEST(err_formats_and_returns_the_negative_code)
{
    struct err e;
    ck_assert_int_eq(err_set(&e, ERR_INVALID, "field %s", "n"), -ERR_INVALID);
    ck_assert_str_eq(e.msg, "field n");
    ck_assert_int_eq(err_set(NULL, ERR_IO, "nobody listens"), -ERR_IO);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("base");
    tcase_add_test(tc, philox_known_answers);
    tcase_add_test(tc, unit_and_gumbel_stay_finite);
    tcase_add_test(tc, arena_survives_failing_allocations);
    tcase_add_test(tc, warm_arena_allocates_nothing);
    tcase_add_test(tc, queue_keeps_each_producers_order);
    tcase_add_test(tc, err_formats_and_returns_the_negative_code);
    return suite_run(tc);
}
