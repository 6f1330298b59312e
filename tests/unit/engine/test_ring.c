#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "random_plan.h"
#include "ring.h"
#include "../suite.h"

enum { CAP = 1024, N = 20000 };
static _Alignas(8) char buf[CAP];
static struct ring ring;

static uint32_t record_len(uint32_t i)
{
    return (i * 7919u) % 97;
}

static void *write_all(void *arg)
{
    for (uint32_t i = 0; i < N;) {
        uint32_t n = record_len(i);
        char *at = ring_reserve(&ring, n);
        if (!at) {
            sched_yield();
            continue;
        }
        memset(at, (int)(i & 0xff), n);
        ring_commit(&ring, n);
        i++;
    }
    return NULL;
}

START_TEST(records_arrive_whole_and_in_order)
{
    ring_init(&ring, buf, CAP);
    pthread_t th;
    pthread_create(&th, NULL, write_all, NULL);
    int n_wrong = 0; /* an assertion for each byte would be slower than the ring by far */
    for (uint32_t i = 0; i < N;) {
        uint32_t n;
        const unsigned char *at = ring_peek(&ring, &n);
        if (!at) {
            sched_yield();
            continue;
        }
        n_wrong += n != record_len(i) || (uintptr_t)at % 8 != 0;
        for (uint32_t j = 0; j < n; j++)
            n_wrong += at[j] != (i & 0xff);
        ring_pop(&ring);
        i++;
    }
    pthread_join(th, NULL);
    ck_assert_int_eq(n_wrong, 0);
    uint32_t n;
    ck_assert_ptr_null(ring_peek(&ring, &n));
}
END_TEST

START_TEST(room_for_two_means_a_record_fits)
{
    struct rnd r = rnd_begin("room_for_two_means_a_record_fits", 3);
    int n_refused = 0;
    ring_init(&ring, buf, CAP);
    for (int i = 0; i < 20000; i++) {
        uint32_t n = (uint32_t)rnd_int(&r, 0, 200), got;
        if (ring_room(&ring) >= 2 * ring_record_bytes(n)) {
            n_refused += ring_reserve(&ring, n) == NULL;
            ring_commit(&ring, n);
        }
        if (rnd_int(&r, 0, 1) && ring_peek(&ring, &got))
            ring_pop(&ring);
    }
    ck_assert_int_eq(n_refused, 0);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ring");
    tcase_add_test(tc, records_arrive_whole_and_in_order);
    tcase_add_test(tc, room_for_two_means_a_record_fits);
    return suite_run(tc);
}
