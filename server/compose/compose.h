/* Answers that are built from several child requests of one client's request: how one is asked for, and what a way of
 * composing is to a job. Private to server/.
 *
 *   "decoding": "vote" | "navigate"                                      short for {"strategy": ...}
 *   "decoding": {"strategy": "vote", "samples": 1..64 (8), "by": "majority" | "complexity", "keep": 1..samples (half),
 *                "answer": "number" | "text" | {"after": "1..256 bytes"}}
 *   "decoding": {"strategy": "navigate", "rounds": 1..32 (10), "per_round": 1..32 (10), "item_stop": "1..64 bytes"
 * ("\""), "max_item": 1..256 (64), "feed_back": true | false}
 */
#ifndef GALLEY_COMPOSE_H
#define GALLEY_COMPOSE_H

#include <jansson.h>

#include "answer.h"

struct api_error;
struct job;

struct compose_ops { /* a way of composing; all on the job's loop */
    const char *name;
    const char *breadth_field; /* to blame for more children at once than the queue ever takes */
    /* The prompt is tokenised: adds the first children. */
    bool (*begin)(struct job *j, struct api_error *e);
    /* All children are done, none by a failure: adds further ones, or, having added none, has numbered the choices that
     * are the answer (choice.index). */
    bool (*go_on)(struct job *j, struct api_error *e);
    /* Members of the answer's `decoding`, each beginning with a comma. */
    void (*tell)(const struct job *j, struct text_buf *b);
    void (*close)(struct job *j); /* frees j->composed; NULL there is legal */
};

extern const struct compose_ops compose_vote, compose_navigate;

struct compose_params {            /* owner: a job; strings are borrowed from its JSON */
    const struct compose_ops *ops; /* NULL: the answer is not composed */
    struct {
        int32_t samples, keep; /* keep: with the most steps, that vote; samples: all */
        bool by_complexity;
        struct answer_rule answer;
    } vote;
    struct {
        int32_t rounds, per_round, max_item; /* max_item: tokens */
        const char *item_stop;
        bool feed_back;
    } navigate;
};

/* Whether `decoding` names a way of composing. */
bool compose_is_named(const json_t *decoding);
/* Reads it into j->how and refuses what the rest of the request says against it; false: e is filled. */
bool compose_read(struct job *j, const json_t *decoding, struct api_error *e);

#endif
