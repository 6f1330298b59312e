/* The way back to the loop: events through the request's ring, news through its sink. */
#include <string.h>

#include "request.h"

/* A record is a struct gen_event, its top list, its text; the pointers are set when it is read. */
void request_emit(struct request *r, const struct gen_event *ev)
{
    uint32_t top_bytes = (uint32_t)ev->n_top * sizeof *ev->top;
    uint32_t size = (uint32_t)sizeof *ev + top_bytes + (uint32_t)ev->n_text;
    char *at = ring_reserve(&r->ring, size);
    BUG_ON(!at);
    memcpy(at, ev, sizeof *ev);
    if (top_bytes)
        memcpy(at + sizeof *ev, ev->top, top_bytes);
    if (ev->n_text)
        memcpy(at + sizeof *ev + top_bytes, ev->text, (size_t)ev->n_text);
    ring_commit(&r->ring, size);
}

bool request_has_room(const struct request *r, int32_t n)
{
    return ring_room(&r->ring) >= 2 * (uint32_t)(n + 1) * ring_record_bytes((uint32_t)r->max_event_bytes);
}

bool request_next_event(struct request *r, struct gen_event *ev)
{
    /* The record handed out last is released only now: its text was the caller's until this call. */
    if (r->reading) {
        ring_pop(&r->ring);
        r->reading = false;
    }
    uint32_t size;
    const char *at = ring_peek(&r->ring, &size);
    if (!at)
        return false;
    memcpy(ev, at, sizeof *ev);
    ev->top = (const struct top_logprob *)(at + sizeof *ev);
    ev->text = at + sizeof *ev + (size_t)ev->n_top * sizeof *ev->top;
    r->reading = true;
    return true;
}

bool sink_next(struct sink *s, struct request **r, bool *done)
{
    if (!s->drained)
        s->drained = queue_drain(&s->q);
    if (!s->drained)
        return false;
    struct news *n = container_of(s->drained, struct news, node);
    s->drained = s->drained->next;
    *r = n->req;
    *done = n->done;
    if (!n->done)
        atomic_store(&n->req->news_queued, false); /* before its events are read: what comes later queues it again */
    return true;
}

void *request_user(const struct request *r)
{
    return r->user;
}

void request_usage(const struct request *r, struct request_usage *u)
{
    *u = (struct request_usage){.n_prompt = r->n_prompt,
                                .n_cached = atomic_load(&r->n_cached),
                                .n_output = atomic_load(&r->n_output),
                                .n_preempted = atomic_load(&r->n_preempted),
                                .n_predicted = atomic_load(&r->n_predicted),
                                .n_predicted_true = atomic_load(&r->n_predicted_true),
                                .queued_ns = atomic_load(&r->queued_ns),
                                .first_token_ns = atomic_load(&r->first_token_ns),
                                .total_ns = atomic_load(&r->total_ns)};
}

const struct request_decoding *request_decoding(const struct request *r)
{
    return &r->decoding;
}

const char *request_error(const struct request *r)
{
    return r->error;
}

void request_prompt_logprob(const struct request *r, int32_t i, float *logprob, int32_t *rank, int32_t *n_top,
                            const struct top_logprob **top)
{
    const struct prompt_logprob *lp = &r->prompt_lp[i];
    *logprob = lp->logprob;
    *rank = lp->rank;
    *n_top = lp->n_top;
    *top = r->prompt_top + (size_t)i * (size_t)r->p.n_prompt_logprobs;
}
