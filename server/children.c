/* The requests to the engine that a job makes, their choices and their figures. */
#include <string.h>

#include "job.h"
#include "logprobs.h"
#include "mem.h"

/* ---- Records ---- */

static bool grow(void **array, int32_t *cap, int32_t need, size_t size)
{
    if (need <= *cap)
        return true;
    int32_t n = *cap ? 2 * *cap : 64;
    while (n < need)
        n *= 2;
    void *p = mem_realloc(*array, (size_t)n * size);
    if (!p)
        return false;
    *array = p;
    *cap = n;
    return true;
}

void choice_keep_token(struct choice *ch, const struct gen_event *ev, const struct tokenizer *tok)
{
    if (!grow((void **)&ch->token, &ch->cap_token, ch->n_token + 1, sizeof *ch->token) ||
        !grow((void **)&ch->top, &ch->cap_top, ch->n_top + ev->n_top, sizeof *ch->top)) {
        ch->failed = true;
        return;
    }
    ch->token[ch->n_token++] = (struct token_record){
        .tok = ev->tok, .n_top = ev->n_top, .top0 = ch->n_top, .logprob = ev->logprob, .char_offset = ch->n_char};
    ch->n_char += token_chars(tok, ev->tok);
    if (ev->n_top)
        memcpy(ch->top + ch->n_top, ev->top, sizeof *ev->top * (size_t)ev->n_top);
    ch->n_top += ev->n_top;
}

/* ---- Making them ---- */

struct choice *job_add_choice(struct job *j, int32_t prompt, struct api_error *e)
{
    if (!grow((void **)&j->choice, &j->cap_choice, j->n_choice + 1, sizeof *j->choice)) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return NULL;
    }
    j->choice[j->n_choice] = (struct choice){.prompt = prompt, .index = -1};
    return &j->choice[j->n_choice++];
}

bool job_add_child(struct job *j, int32_t prompt, const int32_t *tok, int32_t n_tok, const struct gen_params *p,
                   struct api_error *e)
{
    struct err err = {0};
    if (!grow((void **)&j->child, &j->cap_child, j->n_child + 1, sizeof *j->child)) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    struct child *c = &j->child[j->n_child];
    *c = (struct child){.choice0 = j->n_choice, .n = p->n};
    if (request_create(j->loop->srv->eng, tok, n_tok, p, &j->loop->sink, j, &c->r, &err)) {
        api_from_err(e, &err, j->loop->srv);
        if (j->format->prompt_field && e->param && !strcmp(e->param, "prompt"))
            e->param = j->format->prompt_field;
        return false;
    }
    j->n_child++;
    for (int32_t i = 0; i < p->n; i++)
        if (!job_add_choice(j, prompt, e))
            return false;
    return true;
}

bool job_submit_children(struct job *j, const char *field, struct api_error *e)
{
    struct err err = {0};
    int64_t n_new = 0, max_queue = j->loop->srv->opt->max_queue;
    for (int32_t i = 0; i < j->n_child; i++)
        n_new += !j->child[i].submitted;
    if (n_new > max_queue) { /* would be told to try again for ever */
        api_fail(e, 400, field, "%lld requests at once do not fit the server's queue of %lld.", (long long)n_new,
                 (long long)max_queue);
        return false;
    }
    for (int32_t i = 0; i < j->n_child; i++) {
        struct child *c = &j->child[i];
        if (c->submitted)
            continue;
        if (engine_submit(j->loop->srv->eng, c->r, &err)) {
            api_from_err(e, &err, j->loop->srv);
            return false;
        }
        c->submitted = true;
    }
    return true;
}

/* ---- Ending them ---- */

void job_cancel_children(struct job *j)
{
    for (int32_t i = 0; i < j->n_child; i++)
        if (j->child[i].submitted && !j->child[i].done)
            engine_cancel(j->loop->srv->eng, j->child[i].r);
}

bool job_children_over(const struct job *j)
{
    for (int32_t i = 0; i < j->n_child; i++)
        if (j->child[i].submitted && !j->child[i].done)
            return false;
    return true;
}

/* What decoding did is the engine's to write until the child is done. */
static void add_usage(struct job_usage *sum, const struct child *c)
{
    struct request_usage u;
    request_usage(c->r, &u);
    sum->n_prompt += c->shares_prompt ? 0 : u.n_prompt;
    sum->n_cached += c->shares_prompt ? 0 : u.n_cached;
    sum->n_output += u.n_output;
    sum->n_predicted += u.n_predicted;
    sum->n_predicted_true += u.n_predicted_true;
    if (u.first_token_ns > sum->first_token_ns)
        sum->first_token_ns = u.first_token_ns;
    if (!c->done)
        return;
    const struct request_decoding *d = request_decoding(c->r);
    sum->decoding.n_step += d->n_step;
    sum->decoding.n_drafted += d->n_drafted;
    sum->decoding.n_accepted += d->n_accepted;
    sum->decoding.n_segment += d->n_segment;
    sum->decoding.width = d->width > sum->decoding.width ? d->width : sum->decoding.width;
    for (int32_t k = 0; k < DECODING_POSITIONS; k++) {
        sum->decoding.drafted_at[k] += d->drafted_at[k];
        sum->decoding.accepted_at[k] += d->accepted_at[k];
    }
}

void job_usage(const struct job *j, struct job_usage *sum)
{
    *sum = j->tally;
    for (int32_t i = 0; i < j->n_child; i++)
        if (j->child[i].r)
            add_usage(sum, &j->child[i]);
}

void job_retire_children(struct job *j)
{
    for (int32_t i = 0; i < j->n_child; i++) {
        struct child *c = &j->child[i];
        if (!c->done || !c->r)
            continue;
        add_usage(&j->tally, c);
        request_free(c->r);
        c->r = NULL;
    }
}

void job_free_children(struct job *j)
{
    for (int32_t i = 0; i < j->n_child; i++)
        request_free(j->child[i].r);
    for (int32_t i = 0; i < j->n_choice; i++) {
        tb_free(&j->choice[i].text);
        mem_free(j->choice[i].token);
        mem_free(j->choice[i].top);
        mem_free(j->choice[i].stop_text);
    }
    mem_free(j->child);
    mem_free(j->choice);
}
