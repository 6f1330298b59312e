/* What a sequence says: tokens become text, ends are found, events go out. */
#include <stdio.h>
#include <string.h>

#include "gang.h"

/* ---- To the loop ---- */

static void wake_later(struct engine *eng, struct sink *sink)
{
    for (int32_t i = 0; i < eng->n_woken; i++)
        if (eng->woken[i] == sink)
            return;
    if (eng->n_woken == MAX_WOKEN)
        sink->wake(sink);
    else
        eng->woken[eng->n_woken++] = sink;
}

static void tell(struct engine *eng, struct request *r)
{
    if (!atomic_exchange(&r->news_queued, true) && queue_push(&r->sink->q, &r->news.node))
        wake_later(eng, r->sink);
}

/* The engine's last touch of a request. */
static void hand_back(struct engine *eng, struct request *r)
{
    struct sink *sink = r->sink;
    int64_t total = eng->now_ns - r->submit_ns;
    atomic_store_explicit(&r->total_ns, total, memory_order_relaxed);
    if (atomic_load_explicit(&r->queued_ns, memory_order_relaxed) == 0)
        atomic_fetch_sub_explicit(&eng->n_queued, 1, memory_order_relaxed); /* it never ran */
    hist_add(&eng->metrics.now.total_s, (double)total * 1e-9);
    hist_add(&eng->metrics.now.prompt_tokens, r->n_prompt);
    *(r->prev ? &r->prev->next : &eng->requests) = r->next;
    if (r->next)
        r->next->prev = r->prev;
    atomic_fetch_sub_explicit(&eng->n_pending, 1, memory_order_relaxed);
    if (queue_push(&sink->q, &r->done.node))
        wake_later(eng, sink);
}

/* ---- Ends ---- */

void seq_finish(struct engine *eng, struct seq *s, enum finish_reason why, int32_t stop_id, const char *stop_text)
{
    struct request *r = s->req;
    struct gen_event ev = {.choice = s->choice, .tok = -1, .finish = why, .stop_id = stop_id, .stop_text = stop_text};
    int32_t n_held = 0, n_tail;
    const char *held = "";
    char *text = eng->text;
    if (!stop_text) { /* what was held back comes out after all, and half a character as U+FFFD */
        stop_flush(&s->stop, &held, &n_held);
        n_tail = (int32_t)detok_flush(&s->detok, text + n_held);
        if (n_held)
            memcpy(text, held, (size_t)n_held);
        ev.text = text;
        ev.n_text = n_held + n_tail;
    }
    request_emit(r, &ev);
    if (s->gang)
        gang_disband(eng, s->gang);
    sched_remove(eng, s);
    seq_release(eng, s);
    s->state = SEQ_DONE;
    eng->metrics.now.n_finished[why]++;
    hist_add(&eng->metrics.now.output_tokens, s->n_out);
    if (--r->n_active == 0)
        hand_back(eng, r);
    else
        tell(eng, r);
}

void request_finish(struct engine *eng, struct request *r, enum finish_reason why)
{
    for (int32_t i = r->p.n - 1; i >= 0; i--) /* the last call to seq_finish hands r back: read nothing of it after */
        if (r->seq[i].state != SEQ_DONE) {
            bool last = r->n_active == 1;
            seq_finish(eng, &r->seq[i], why, -1, NULL);
            if (last)
                return;
        }
}

static bool is_stop_id(const struct request *r, int32_t tok)
{
    for (int32_t i = 0; i < r->p.n_stop_ids; i++)
        if (r->p.stop_ids[i] == tok)
            return true;
    return false;
}

/* ---- A token ---- */

static void record_times(struct engine *eng, struct seq *s)
{
    struct request *r = s->req;
    int64_t now = clock_ns();
    if (s->n_out == 1 && atomic_load_explicit(&r->first_token_ns, memory_order_relaxed) == 0) {
        atomic_store_explicit(&r->first_token_ns, now - r->submit_ns, memory_order_relaxed);
        hist_add(&eng->metrics.now.first_token_s, (double)(now - r->submit_ns) * 1e-9);
    } else if (s->n_out > 1) {
        hist_add(&eng->metrics.now.inter_token_s, (double)(now - s->last_token_ns) * 1e-9);
    }
    s->last_token_ns = now;
}

bool seq_ends_at(const struct engine *eng, const struct seq *s, int32_t tok)
{
    return (!s->req->p.ignore_eos && tok_is_eog(eng->model.tok, tok)) || is_stop_id(s->req, tok);
}

void seq_copy_text(struct seq *to, const struct seq *from)
{
    to->detok = from->detok;
    to->stop.n_held = from->stop.n_held;
    if (from->stop.n_held)
        memcpy(to->stop.held, from->stop.held, (size_t)from->stop.n_held);
}

/* The token's text, as far as it may go out. Returns the stop string that was found, or -1. */
static int32_t token_text(struct engine *eng, struct seq *s, int32_t tok, struct gen_event *ev)
{
    struct request *r = s->req;
    int32_t n = (int32_t)detok_push(&s->detok, tok, eng->text);
    ev->text = eng->text;
    ev->n_text = n;
    if (r->stop_set.n == 0 || s->n_out < r->p.min_tokens) /* stop strings count from min_tokens on */
        return -1;
    return stop_push(&s->stop, &r->stop_set, eng->text, n, r->p.include_stop, &ev->text, &ev->n_text);
}

bool seq_try_text(struct engine *eng, struct seq *s, int32_t tok)
{
    struct gen_event ev;
    return s->req->stop_set.n > 0 && !tok_is_control(eng->model.tok, tok) && token_text(eng, s, tok, &ev) >= 0;
}

bool seq_accept(struct engine *eng, struct seq *s, const struct sampled *t)
{
    struct request *r = s->req;
    if (t->tok < 0) {
        snprintf(r->error, sizeof r->error,
                 "no token can be sampled: the model's logits are not finite, or everything is banned");
        seq_finish(eng, s, FINISH_ERROR, -1, NULL);
        return false;
    }
    s->out[s->n_out++] = t->tok;
    seq_count_token(s, t->tok);
    atomic_fetch_add_explicit(&r->n_output, 1, memory_order_relaxed);
    eng->metrics.now.n_output_tokens++;
    record_times(eng, s);

    struct gen_event ev = {.choice = s->choice, .tok = t->tok};
    if (r->p.n_logprobs >= 0) { /* a way of decoding may know them all the same */
        ev.logprob = t->logprob;
        ev.rank = t->rank;
        ev.n_top = t->n_top;
        ev.top = t->top;
    }
    bool ends = seq_ends_at(eng, s, t->tok);
    int32_t stop = -1;
    if (!ends || !tok_is_control(eng->model.tok, t->tok)) /* an end token's name is not text */
        stop = token_text(eng, s, t->tok, &ev);
    if (ev.n_text || r->p.emit_tokens || r->p.n_logprobs >= 0) {
        request_emit(r, &ev);
        tell(eng, r);
    }
    if (stop >= 0)
        seq_finish(eng, s, FINISH_STOP, -1, r->stop_set.text[stop]);
    else if (ends)
        seq_finish(eng, s, FINISH_STOP, t->tok, NULL);
    else if (s->n_out == r->p.max_tokens)
        seq_finish(eng, s, FINISH_LENGTH, -1, NULL);
    else
        return true;
    return false;
}
