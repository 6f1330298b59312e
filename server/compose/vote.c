/* Self-consistency (Wang et al.): samples of one prompt, of whose final answers the most frequent wins; what comes back
 * is the first sample that gave it. Complexity-based voting (Fu et al.): others.md 11.1. */
#include "ballot.h"
#include "job.h"
#include "mem.h"

enum { MAX_SAMPLES = 64 };

struct vote { /* owner: a job */
    struct text_buf answers;
    size_t end[MAX_SAMPLES]; /* sample i's answer is answers[end[i - 1] .. end[i]) */
    bool has_answer[MAX_SAMPLES];
    struct ballot_entry entry[MAX_SAMPLES]; /* the winner first */
    int32_t n_entry, n_answered;
};

static void close_vote(struct job *j)
{
    struct vote *v = j->composed;
    if (v)
        tb_free(&v->answers);
    mem_free(v);
    j->composed = NULL;
}

static struct slice answer_of(const struct vote *v, int32_t i)
{
    size_t from = i ? v->end[i - 1] : 0;
    return (struct slice){v->answers.p + from, v->end[i] - from};
}

/* As few requests as the engine takes so many choices in; a seed's samples are the same whatever that number is. */
static bool begin(struct job *j, struct api_error *e)
{
    struct gen_params p = j->par.p;
    int32_t max = engine_max_n(j->loop->srv->eng), samples = j->how.vote.samples;
    j->composed = mem_calloc(1, sizeof(struct vote));
    if (!j->composed) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    for (; p.choice0 < samples; p.choice0 += p.n) {
        p.n = samples - p.choice0 < max ? samples - p.choice0 : max;
        if (!job_add_child(j, 0, j->prompt[0].tok, j->prompt[0].n_tok, &p, e))
            return false;
        j->child[j->n_child - 1].shares_prompt = j->n_child > 1;
        p.n_prompt_logprobs = -1; /* the first one's are enough */
    }
    j->prompt[0].r = j->child[0].r;
    return true;
}

/* What each sample says in the end. One that the deadline cut off says nothing. */
static void extract_answers(struct job *j, struct vote *v)
{
    for (int32_t i = 0; i < j->n_choice; i++) {
        const struct choice *ch = &j->choice[i];
        v->has_answer[i] =
            ch->finish != FINISH_DEADLINE && answer_extract(&j->how.vote.answer, ch->text.p, ch->text.n, &v->answers);
        v->end[i] = v->answers.n;
        v->n_answered += v->has_answer[i];
        v->answers.failed |= ch->failed;
    }
}

static void count_votes(struct job *j, struct vote *v)
{
    struct slice text[MAX_SAMPLES];
    struct ballot_sample sample[MAX_SAMPLES];
    int32_t steps[MAX_SAMPLES];
    for (int32_t i = 0; i < j->n_choice; i++)
        text[i] = (struct slice){j->choice[i].text.p, j->choice[i].text.n};
    answer_steps(text, j->n_choice, steps);
    for (int32_t i = 0; i < j->n_choice; i++) {
        struct slice answer = v->has_answer[i] ? answer_of(v, i) : (struct slice){NULL, 0};
        sample[i] = (struct ballot_sample){answer.p, answer.len, steps[i]};
    }
    v->n_entry = ballot_count(sample, j->n_choice, j->how.vote.keep, v->entry);
}

/* The first sample that was not cut off, for when none has an answer; -1: all were. */
static int32_t first_whole(const struct job *j)
{
    for (int32_t i = 0; i < j->n_choice; i++)
        if (j->choice[i].finish != FINISH_DEADLINE)
            return i;
    return -1;
}

static bool go_on(struct job *j, struct api_error *e)
{
    struct vote *v = j->composed;
    extract_answers(j, v);
    if (v->answers.failed) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    count_votes(j, v);
    int32_t winner = v->n_entry ? v->entry[0].first : first_whole(j);
    if (winner < 0) {
        job_out_of_time(e, "a sample was finished");
        return false;
    }
    j->choice[winner].index = 0;
    return true;
}

static void tell_answer(const struct vote *v, struct text_buf *b, const struct ballot_entry *entry)
{
    struct slice answer = answer_of(v, entry->first);
    tb_json(b, answer.p, answer.len);
}

static void tell(const struct job *j, struct text_buf *b)
{
    const struct vote *v = j->composed;
    tb_printf(b, ",\"samples\":%d,\"by\":\"%s\"", j->how.vote.samples,
              j->how.vote.by_complexity ? "complexity" : "majority");
    if (j->how.vote.by_complexity)
        tb_printf(b, ",\"keep\":%d", j->how.vote.keep);
    tb_str(b, ",\"votes\":[");
    for (int32_t i = 0; i < v->n_entry; i++) {
        tb_str(b, i ? ",{\"answer\":" : "{\"answer\":");
        tell_answer(v, b, &v->entry[i]);
        tb_printf(b, ",\"votes\":%d}", v->entry[i].votes);
    }
    tb_printf(b, "],\"unanswered\":%d,\"winner\":", j->how.vote.samples - v->n_answered);
    if (v->n_entry)
        tell_answer(v, b, &v->entry[0]);
    else
        tb_str(b, "null");
}

const struct compose_ops compose_vote = {.name = "vote",
                                         .breadth_field = "decoding.samples",
                                         .begin = begin,
                                         .go_on = go_on,
                                         .tell = tell,
                                         .close = close_vote};
