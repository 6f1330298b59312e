#include "gang.h"

#include <string.h>

void gang_join(struct engine *eng, struct gang *g)
{
    struct seq_kv *common = &g->leader->kv;
    if (common->n_computed < gang_fork_point(g->leader) || common->moved_in > eng->target.n_plan)
        return;
    for (int32_t i = 0; i < g->n_member; i++) {
        struct seq *m = &g->member[i];
        if (!m->live || m->state == SEQ_RUNNING)
            continue;
        seq_fork(&eng->target, common, &m->kv);
        if (m->kv.n_computed == seq_n_tok(m)) { /* it draws its own next token behind the last common one */
            m->kv.n_computed--;
            seq_trim(&eng->target, &m->kv, 0);
        }
        sched_run(eng, m);
    }
}

static void put_aside(struct engine *eng, struct seq *m)
{
    sched_remove(eng, m);
    seq_release(eng, m);
    m->state = SEQ_IDLE;
}

int32_t gang_suspend(struct engine *eng, struct gang *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_member; i++)
        if (g->member[i].state == SEQ_RUNNING) {
            n += g->member[i].n_want;
            put_aside(eng, &g->member[i]);
        }
    return n;
}

void gang_stop(struct engine *eng, struct seq *member)
{
    put_aside(eng, member);
    member->live = false;
}

void gang_disband(struct engine *eng, struct gang *g)
{
    for (int32_t i = 0; i < g->n_member; i++)
        gang_stop(eng, &g->member[i]);
}

void gang_copy_tokens(struct seq *member, const struct seq *from)
{
    member->n_out = from->n_out;
    if (from->n_out)
        memcpy(member->out, from->out, sizeof *from->out * (size_t)from->n_out);
    member->n_law_tok = from->n_law_tok;
    if (from->n_law_tok)
        memcpy(member->law_tok, from->law_tok, sizeof *from->law_tok * (size_t)from->n_law_tok);
    seq_copy_text(member, from);
}

/* ---- Saying what was decided ---- */

enum gang_said gang_say(struct engine *eng, const struct gang *g, int32_t text, struct seq *s, int32_t *i)
{
    struct sampled t;
    for (; g->token(g, text, *i, &t); ++*i) {
        if (!request_has_room(s->req, 2 * s->req->p.n))
            return SAID_SOME;
        if (!seq_accept(eng, s, &t))
            return SAID_END;
    }
    return SAID_ALL;
}

enum gang_news gang_say_choices(struct engine *eng, struct gang *g, int32_t n_text)
{
    struct request *r = g->leader->req;
    enum gang_news news = GANG_IDLE;
    for (int32_t n = r->p.n; g->choice < n; g->choice++, g->n_said = 0) {
        struct seq *s = &r->seq[g->choice];
        bool only = r->n_active == 1;
        if (s->state == SEQ_DONE)
            continue;
        enum gang_said said = SAID_END;
        if (g->choice >= n_text)
            seq_accept(eng, s, &(struct sampled){.tok = -1});
        else
            said = gang_say(eng, g, g->choice, s, &g->n_said);
        if (said == SAID_SOME)
            return news;
        if (said == SAID_ALL)
            seq_finish(eng, s, FINISH_LENGTH, -1, NULL);
        news = GANG_BUSY;
        if (only)
            return GANG_GONE;
    }
    return news;
}
