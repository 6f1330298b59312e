#include "decoding.h"
#include "logprobs.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "mem.h"
#include "wake.h"

enum { OUT_LIMIT = 1 << 18 }; /* stream bytes kept for a slow client */

/* ---- Life ---- */

struct job *job_new(struct call *c, const struct job_format *f, json_t *body)
{
    struct job *j = mem_calloc(1, sizeof *j);
    if (!j) {
        json_decref(body);
        return NULL;
    }
    j->call = c;
    j->loop = c->loop;
    j->format = f;
    j->body = body;
    j->created_s = (int64_t)time(NULL);
    j->start_ns = c->start_ns;
    tb_free(&c->body); /* parsed: nobody needs the bytes while tokens are made */
    memcpy(j->request_id, c->request_id, sizeof j->request_id);
    snprintf(j->id, sizeof j->id, "%s-%.32s", f->id_prefix, c->request_id);
    return j;
}

void job_free(struct job *j)
{
    if (!j)
        return;
    if (j->how.ops)
        j->how.ops->close(j);
    job_free_children(j);
    for (int32_t i = 0; i < j->n_prompt; i++)
        mem_free(j->prompt[i].tok);
    mem_free(j->prompt);
    mem_free(j->rendered);
    tb_free(&j->prediction.text);
    mem_free(j->prediction.tok);
    tb_free(&j->out);
    params_free(&j->par);
    json_decref(j->body);
    mem_free(j);
}

bool job_set_prompts(struct job *j, int32_t n)
{
    j->prompt = mem_calloc((size_t)n, sizeof *j->prompt);
    j->n_prompt = j->prompt ? n : 0;
    return j->prompt != NULL;
}

static void log_end(const struct job *j)
{
    struct job_usage u;
    job_usage(j, &u);
    log_line(LOG_INFO, "request", "id=%s prompt=%lld cached=%lld output=%lld finish=%s first_ms=%.1f total_ms=%.1f",
             j->id, (long long)u.n_prompt, (long long)u.n_cached, (long long)u.n_output,
             j->call && !j->call->gone ? finish_name(j->choice[0].finish) : "client_left",
             (double)u.first_token_ns * 1e-6, (double)(clock_ns() - j->start_ns) * 1e-6);
}

/* Once the engine has no request of it and MHD no call. */
void job_free_if_over(struct job *j)
{
    if (!j->call && !j->working && job_children_over(j))
        job_free(j);
}

void job_client_gone(struct call *c)
{
    if (c->job)
        job_cancel_children(c->job);
    call_resume(c); /* MHD must look at the connection to see that it is dead; then the call ends */
}

void job_detach(struct call *c)
{
    struct job *j = c->job;
    if (!j)
        return;
    job_cancel_children(j);
    c->job = NULL;
    j->call = NULL;
    j->paused =
        false; /* nobody will read on: what is still said is dropped, and the last request's end frees the job */
    job_free_if_over(j);
}

/* ---- Usage and names ---- */

const char *finish_name(enum finish_reason f)
{
    return f == FINISH_STOP ? "stop" : "length";
}

void write_usage(struct job *j, struct text_buf *b)
{
    struct job_usage u;
    job_usage(j, &u);
    /* Tokens of the prediction, each once: what was drafted again after a mismatch is not counted again. */
    int64_t rejected = u.n_predicted - u.n_predicted_true, unseen = j->prediction.n_tok - u.n_predicted_true;
    rejected = rejected < unseen ? rejected : unseen > 0 ? unseen : 0;
    tb_printf(b,
              "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,\"prompt_tokens_details\":{"
              "\"cached_tokens\":%lld},"
              "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"accepted_prediction_tokens\":%lld,"
              "\"rejected_prediction_tokens\":%lld}}",
              (long long)u.n_prompt, (long long)u.n_output, (long long)(u.n_prompt + u.n_output), (long long)u.n_cached,
              (long long)u.n_predicted_true, (long long)rejected);
}

static void write_head(struct job *j, struct text_buf *b, const char *object)
{
    tb_str(b, "{\"id\":");
    tb_json_str(b, j->id);
    tb_printf(b, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object, (long long)j->created_s);
    tb_json_str(b, j->loop->srv->model_name);
}

/* ---- Collecting ---- */

static void collect(struct job *j, struct choice *ch, const struct gen_event *ev)
{
    if (ev->tok >= 0) {
        ch->n_generated++;
        ch->sum_logprob += ev->logprob;
        if (j->keeps_tokens)
            choice_keep_token(ch, ev, engine_tokenizer(j->loop->srv->eng));
    }
    tb_add(&ch->text, ev->text, (size_t)ev->n_text);
    if (ev->finish) {
        ch->finish = ev->finish;
        ch->stop_id = ev->stop_id;
        ch->stop_text = ev->stop_text ? mem_strdup(ev->stop_text) : NULL;
    }
    ch->failed |= ch->text.failed;
}

/* ---- Streaming ---- */

static void begin_chunk(struct job *j)
{
    tb_str(&j->out, "data: ");
    write_head(j, &j->out, j->format->chunk_object);
}

static void end_chunk(struct job *j)
{
    if (j->par.continuous_usage) {
        tb_str(&j->out, ",\"usage\":");
        write_usage(j, &j->out);
    } else if (j->par.include_usage) {
        tb_str(&j->out, ",\"usage\":null");
    }
    tb_str(&j->out, "}\n\n");
}

/* vLLM's stop_reason: the stop string or id that was asked for; null for an end token of the model's own. */
static void write_stop_reason(const struct job *j, struct text_buf *b, const struct choice *ch)
{
    const struct gen_params *p = &j->par.p;
    tb_str(b, ",\"stop_reason\":");
    if (ch->finish == FINISH_STOP && ch->stop_text) {
        tb_json_str(b, ch->stop_text);
        return;
    }
    for (int32_t i = 0; i < p->n_stop_ids && ch->finish == FINISH_STOP; i++)
        if (p->stop_ids[i] == ch->stop_id) {
            tb_int(b, ch->stop_id);
            return;
        }
    tb_str(b, "null");
}

static void stream_chunk(struct job *j, int32_t index, struct choice *ch, const char *text, int32_t n_text,
                         enum finish_reason finish)
{
    begin_chunk(j);
    tb_printf(&j->out, ",\"choices\":[{\"index\":%d,", index);
    j->format->delta(j, &j->out, ch, text, (size_t)n_text);
    if (finish) {
        tb_printf(&j->out, ",\"finish_reason\":\"%s\"", finish_name(finish));
        write_stop_reason(j, &j->out, ch);
    } else {
        tb_str(&j->out, ",\"finish_reason\":null");
    }
    tb_str(&j->out, "}]");
    end_chunk(j);
    ch->n_sent_token = ch->n_token;
}

static void stream_opening(struct job *j, int32_t index)
{
    if (!j->format->opening)
        return;
    begin_chunk(j);
    j->format->opening(j, &j->out, index);
    end_chunk(j);
}

/* The end has a chunk of its own: clients expect the last delta to be empty. */
static void stream_event(struct job *j, int32_t index, struct choice *ch, const struct gen_event *ev)
{
    if (ev->n_text || ch->n_sent_token < ch->n_token)
        stream_chunk(j, index, ch, ev->text, ev->n_text, FINISH_NONE);
    if (ev->finish)
        stream_chunk(j, index, ch, "", 0, ev->finish);
}

/* Of a composed answer: the choices that have become part of it since. */
static void stream_settled(struct job *j)
{
    for (int32_t i = 0; i < j->n_choice; i++) {
        struct choice *ch = &j->choice[i];
        if (ch->index < 0 || ch->sent)
            continue;
        j->out.failed |= ch->failed;
        stream_opening(j, ch->index);
        stream_event(j, ch->index, ch,
                     &(struct gen_event){.text = ch->text.p, .n_text = (int32_t)ch->text.n, .finish = ch->finish});
        ch->sent = true;
    }
}

static void stream_error(struct job *j, const char *message)
{
    tb_str(&j->out, "data: {\"error\":{\"message\":");
    tb_json_str(&j->out, message);
    tb_str(&j->out, ",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
}

static void stream_end(struct job *j)
{
    if (j->broken) {
        stream_error(j, j->broken);
    } else {
        if (j->par.include_usage || j->tells_decoding) {
            begin_chunk(j);
            tb_str(&j->out, ",\"choices\":[]");
            if (j->par.include_usage) {
                tb_str(&j->out, ",\"usage\":");
                write_usage(j, &j->out);
            }
            decoding_write(j, &j->out);
            tb_str(&j->out, "}\n\n");
        }
        tb_str(&j->out, "data: [DONE]\n\n");
    }
    j->ended = true;
}

static void drain_events(struct job *j);

static ssize_t stream_read(void *arg, uint64_t pos, char *buf, size_t max)
{
    struct call *c = arg;
    struct job *j = c->job;
    if (c->gone || !j || j->out.failed)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (j->paused && j->out.n < OUT_LIMIT / 2)
        drain_events(j);
    if (j->out.n > 0) {
        size_t n = j->out.n < max ? j->out.n : max;
        memcpy(buf, j->out.p, n);
        tb_drop(&j->out, n);
        return (ssize_t)n;
    }
    if (j->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (c->loop->stopping) /* nothing more will come */
        return MHD_CONTENT_READER_END_WITH_ERROR;
    call_suspend(c);
    return 0;
}

void job_begin_stream(struct job *j)
{
    if (!j->how.ops) /* else nobody knows yet what the choices are */
        for (int32_t i = 0; i < j->n_choice; i++)
            stream_opening(j, i);
    call_stream(j->call, stream_read, j->call);
}

void job_tick(struct call *c, int64_t now_ns)
{
    struct job *j = c->job;
    int64_t interval_ns = c->loop->srv->opt->ping_interval * INT64_C(1000000000);
    if (!j || !j->par.stream || !c->answered || !c->suspended || j->ended || !interval_ns ||
        now_ns - j->last_sent_ns < interval_ns)
        return;
    tb_str(&j->out, ":\n\n");
    j->last_sent_ns = now_ns;
    call_resume(c);
}

/* ---- The whole answer ---- */

/* Of each prompt's best_of choices the n with the highest mean log-probability, in order of generation. */
static bool is_returned(const struct job *j, const struct choice *all, int32_t at)
{
    if (j->best_of == j->par.p.n)
        return true;
    int32_t better = 0;
    double own = all[at].sum_logprob / (all[at].n_generated ? all[at].n_generated : 1);
    for (int32_t i = 0; i < j->best_of; i++) {
        double other = all[i].sum_logprob / (all[i].n_generated ? all[i].n_generated : 1);
        better += other > own || (other == own && i < at);
    }
    return better < j->par.p.n;
}

static void number_choices(struct job *j)
{
    int32_t index = 0;
    for (int32_t i = 0; i < j->n_choice; i++)
        if (is_returned(j, &j->choice[i - i % j->best_of], i % j->best_of))
            j->choice[i].index = index++;
}

static void answer(struct job *j)
{
    struct text_buf b = {0};
    bool first = true;
    write_head(j, &b, j->format->object);
    tb_str(&b, ",\"choices\":[");
    for (int32_t i = 0; i < j->n_choice; i++) {
        struct choice *ch = &j->choice[i];
        if (ch->index < 0)
            continue;
        b.failed |= ch->failed;
        tb_str(&b, first ? "{" : ",{");
        tb_printf(&b, "\"index\":%d,", ch->index);
        j->format->choice(j, &b, ch->index, ch, &j->prompt[ch->prompt]);
        tb_printf(&b, ",\"finish_reason\":\"%s\"", finish_name(ch->finish));
        write_stop_reason(j, &b, ch);
        tb_str(&b, "}");
        first = false;
    }
    tb_str(&b, "],\"usage\":");
    write_usage(j, &b);
    decoding_write(j, &b);
    if (j->format->extra)
        j->format->extra(j, &b);
    tb_str(&b, "}");
    call_json(j->call, 200, &b);
}

void job_out_of_time(struct api_error *e, const char *before)
{
    api_fail(e, 408, "timeout", "The request ran out of time before %s.", before);
    e->code = "timeout";
    e->no_retry = true;
}

static bool choice_failure(const struct job *j, const struct child *c, const struct choice *ch, struct api_error *e)
{
    if (ch->finish == FINISH_ERROR) {
        api_fail(e, 500, NULL, "%s", request_error(c->r));
    } else if (ch->finish == FINISH_CANCELED) {
        api_fail(e, 503, NULL, "The server is shutting down.");
        e->retry_after_s = 10;
    } else if (ch->finish == FINISH_DEADLINE && ch->n_generated == 0 && !j->how.ops) {
        job_out_of_time(e, "its first token");
    }
    return e->status != 0;
}

/* The worst that befell any choice decides whether there is an answer at all. */
static bool find_failure(struct job *j, struct api_error *e)
{
    for (int32_t i = 0; i < j->n_child; i++) {
        const struct child *c = &j->child[i];
        for (int32_t k = 0; c->r && k < c->n; k++)
            if (choice_failure(j, c, &j->choice[c->choice0 + k], e))
                return true;
    }
    return false;
}

/* What an answer that has begun to be streamed says of its failure. */
static const char *failure_text(struct job *j, const struct api_error *e)
{
    j->work_error = *e; /* keeps the text */
    return e->status == 500   ? "The model failed while it was generating."
           : e->status == 503 ? "The server is shutting down."
           : e->status == 408 ? "The request ran out of time."
                              : j->work_error.message;
}

/* All children are done. False: the answer is composed, and needs further ones, which are on their way. */
static bool finish(struct job *j)
{
    struct api_error e = {0};
    bool is_heard = j->call && !j->call->gone, failed = find_failure(j, &e);
    int32_t n_child = j->n_child;
    if (is_heard && !failed && j->how.ops) {
        failed = !j->how.ops->go_on(j, &e) || !job_submit_children(j, j->how.ops->breadth_field, &e);
        if (j->par.stream && !failed)
            stream_settled(j);
        if (j->n_child > n_child && !failed)
            return false;
    } else if (!j->how.ops) {
        number_choices(j);
    }
    log_end(j);
    job_cancel_children(j); /* of a failed round, those that were submitted */
    if (!is_heard)
        return true;
    if (j->par.stream) {
        j->broken = failed ? failure_text(j, &e) : NULL;
        stream_end(j);
    } else if (failed) {
        call_error(j->call, &e);
    } else {
        answer(j);
    }
    return true;
}

/* ---- News from the engine ---- */

static void take_events(struct job *j, const struct child *c)
{
    struct gen_event ev;
    while (!(j->par.stream && j->call && j->out.n > OUT_LIMIT) && request_next_event(c->r, &ev)) {
        int32_t k = c->choice0 + ev.choice;
        struct choice *ch = &j->choice[k];
        collect(j, ch, &ev);
        if (!j->par.stream || j->how.ops)
            continue;
        if (j->call && ev.finish != FINISH_CANCELED && ev.finish != FINISH_ERROR &&
            !(ev.finish == FINISH_DEADLINE && !ch->n_generated))
            stream_event(j, k, ch, &ev);
        ch->text.n = 0; /* streamed text is not kept */
    }
    j->paused = j->par.stream && j->call && j->out.n > OUT_LIMIT;
}

/* Everything the job's requests have said, as far as the client keeps up; the end once the last one is done. */
static void drain_events(struct job *j)
{
    for (int32_t i = 0; i < j->n_child; i++)
        if (j->child[i].submitted && j->child[i].r)
            take_events(j, &j->child[i]);
    if (!j->paused && j->n_done == j->n_child && !j->ended)
        j->ended = finish(j);
}

void job_news(struct loop *l)
{
    struct request *r;
    bool done;
    while (sink_next(&l->sink, &r, &done)) {
        struct job *j = request_user(r);
        if (done)
            for (int32_t i = 0; i < j->n_child; i++)
                if (j->child[i].r == r) {
                    j->child[i].done = true;
                    j->n_done++;
                }
        if (j->paused)
            continue; /* stream_read goes on when the client does */
        size_t before = j->out.n;
        if (!j->ended)
            drain_events(j);
        if (!j->call) {
            job_free_if_over(j);
            continue;
        }
        if (j->out.n > before)
            j->last_sent_ns = clock_ns();
        if (j->par.stream && j->call->suspended && (j->out.n > 0 || j->ended))
            call_resume(j->call);
    }
}
