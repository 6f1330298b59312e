/* Intrusive many-producer one-consumer queue, drained whole: the only way data crosses between threads.
 * Lock-free push; the consumer detaches everything at once and gets it in the order it was pushed. */
#ifndef GALLEY_QUEUE_H
#define GALLEY_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct queue_node {
    struct queue_node *next;
};

struct queue {
    _Atomic(struct queue_node *) head; /* newest first */
};

static inline void queue_init(struct queue *q)
{
    atomic_init(&q->head, NULL);
}

/* Returns true when the queue was empty before: exactly then the consumer must be woken. */
static inline bool queue_push(struct queue *q, struct queue_node *n)
{
    struct queue_node *old = atomic_load_explicit(&q->head, memory_order_relaxed);
    do
        n->next = old;
    while (!atomic_compare_exchange_weak_explicit(&q->head, &old, n, memory_order_release, memory_order_relaxed));
    return old == NULL;
}

/* Detaches all nodes; returns the oldest first, or NULL. */
static inline struct queue_node *queue_drain(struct queue *q)
{
    struct queue_node *n = atomic_exchange_explicit(&q->head, NULL, memory_order_acquire), *out = NULL;
    while (n) {
        struct queue_node *next = n->next;
        n->next = out;
        out = n;
        n = next;
    }
    return out;
}

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#endif
