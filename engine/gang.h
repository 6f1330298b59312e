/* A gang: the sequences that decode one choice together - the trials of a segment, the beams of a search. The leader is
 * the choice's own sequence and holds what all have in common; members fork from it, and never speak to the client.
 * The gang is admitted and preempted as a whole: preempted, it loses all blocks, and starts again by the leader's
 * computing the common part, from which the members that live fork once more. Private to engine/. */
#ifndef GALLEY_GANG_H
#define GALLEY_GANG_H

#include "engine_impl.h"

enum gang_news {
    GANG_IDLE, /* nothing happened */
    GANG_BUSY, /* something did: step again */
    GANG_GONE, /* the request was handed back: touch nothing of it */
};

struct gang { /* owner: its request's arena; the first part of a strategy's own state */
    struct seq *leader, *member;
    int32_t n_member;
    int32_t choice, n_said; /* of gang_say_choices: the choice that is being said, and its tokens that were */
    /* After every step, and when there was nothing to compute: choose, say what is decided. */
    enum gang_news (*gather)(struct engine *eng, struct gang *g);
    /* The i-th token of a text that was decided; false: it has no more. */
    bool (*token)(const struct gang *g, int32_t text, int32_t i, struct sampled *out);
};

/* Of limits.max_seqs: a leader takes its members' places with its own. */
static inline int32_t gang_places(const struct seq *s)
{
    return !s->gang ? 1 : s == s->gang->leader ? 1 + s->gang->n_member : 0;
}

/* Tokens the members have in common, as far as the leader must have computed them. */
static inline int32_t gang_fork_point(const struct seq *leader)
{
    return seq_n_tok(leader) - 1;
}

/* Members that live and do not run fork from the leader, once it has computed enough. Each has a token to compute. */
void gang_join(struct engine *eng, struct gang *g);
/* Takes the members from the running list and all their blocks, not their tokens. Returns the rows they were granted.
 */
int32_t gang_suspend(struct engine *eng, struct gang *g);
/* A member has no more work. */
void gang_stop(struct engine *eng, struct seq *member);
void gang_disband(struct engine *eng, struct gang *g); /* no member has */
/* The member's tokens so far are the leader's. */
void gang_copy_tokens(struct seq *member, const struct seq *from);

enum gang_said {
    SAID_ALL,
    SAID_SOME,
    SAID_END
}; /* the text; what there was room for; the sequence is finished by it */

/* Says the text from its token *i on. */
enum gang_said gang_say(struct engine *eng, const struct gang *g, int32_t text, struct seq *s, int32_t *i);
/* For gangs that decide all choices of their request at once: says text i as choice i, over as many calls as it takes.
 * Choices beyond n_text end with an error: everything else was banned. */
enum gang_news gang_say_choices(struct engine *eng, struct gang *g, int32_t n_text);

#endif
