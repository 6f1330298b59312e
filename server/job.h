/* A generation call's life: prompts become requests, events become text, the text becomes one JSON body or a stream.
 * What completions and chat say differently stands in their struct job_format; an answer that takes more than a request
 * for each prompt is put together by a way of composing (compose/). Owner: the loop. Private to server/.
 *
 * A job outlives its call when the client leaves: its requests are canceled, and the job goes when the engine has
 * handed back the last of them.
 */
#ifndef GALLEY_JOB_H
#define GALLEY_JOB_H

#include "compose/compose.h"
#include "params.h"

struct token_record {         /* kept when logprobs or token ids were asked for */
    int32_t tok, n_top, top0; /* top[top0 .. top0 + n_top) of the choice */
    float logprob;
    int32_t char_offset; /* characters of the pieces before it */
};

struct choice {
    int32_t prompt; /* which one it answers */
    int32_t index;  /* its place in the answer; -1: not in it, or not decided yet */
    bool sent;      /* of a composed answer: streamed */
    struct text_buf text;
    struct token_record *token;
    int32_t n_token, cap_token;
    struct top_logprob *top;
    int32_t n_top, cap_top;
    int32_t n_sent_token; /* streaming: records that went out */
    int32_t n_char;       /* of all recorded pieces */
    double sum_logprob;
    int32_t n_generated;
    enum finish_reason finish;
    int32_t stop_id;
    char *stop_text;
    bool failed; /* out of memory while collecting */
};

struct prompt {
    const char *text; /* borrowed from the JSON or the rendered conversation; NULL: ids only */
    size_t n_text;
    int32_t *tok, n_tok;
    const struct request *r; /* a child's that was made of it as it is; borrowed */
};

struct child {          /* one request to the engine: a prompt's own, or one of those an answer is composed of */
    struct request *r;  /* NULL: over, and its figures are in the job's tally */
    int32_t choice0, n; /* job->choice[choice0 .. choice0 + n) */
    bool submitted, done;
    bool shares_prompt; /* of an earlier child: counted once */
};

struct job_usage { /* over all children */
    int64_t n_prompt, n_cached, n_output, n_predicted, n_predicted_true;
    int64_t first_token_ns; /* the latest */
    struct request_decoding decoding;
};

struct job;

struct job_format { /* what an endpoint's answers look like */
    const char *id_prefix, *object, *chunk_object;
    const char *prompt_field; /* what to blame for a prompt that does not fit */
    /* One choice of the whole answer, an object. */
    void (*choice)(struct job *j, struct text_buf *b, int32_t index, struct choice *ch, const struct prompt *p);
    /* The part of a chunk's choice after "index":N, - text and logprobs. */
    void (*delta)(struct job *j, struct text_buf *b, struct choice *ch, const char *text, size_t n_text);
    /* First chunk of each choice before any token; NULL: none. */
    void (*opening)(struct job *j, struct text_buf *b, int32_t index);
    /* Further members of the whole answer, each beginning with a comma; NULL: none. */
    void (*extra)(struct job *j, struct text_buf *b);
};

struct job {
    struct call *call; /* NULL once the client is gone */
    struct loop *loop;
    const struct job_format *format;
    json_t *body; /* kept: strings point into it */
    struct params par;
    int32_t best_of;                         /* choices generated for each prompt; par.p.n of them returned */
    bool echo, has_logprobs, encode_special; /* encode_special: the prompt is a rendered conversation */
    bool keeps_tokens;                       /* choices keep records of their tokens */
    char *rendered;
    struct { /* what the client expects the answer to be */
        struct text_buf text;
        int32_t *tok, n_tok;
    } prediction;
    bool tells_decoding; /* the answer says how it was decoded */
    struct compose_params how;
    void *composed; /* the way of composing's own */
    struct prompt *prompt;
    int32_t n_prompt;
    struct child *child;
    int32_t n_child, cap_child, n_done;
    struct choice *choice; /* moves when further ones are added */
    int32_t n_choice, cap_choice;
    struct job_usage tally; /* of children that are over */
    char id[64], request_id[80];
    int64_t created_s, start_ns, last_sent_ns;
    struct text_buf out; /* stream bytes not yet taken by MHD */
    bool ended, paused;  /* stream: all is written; events are left in the rings until the client reads on */
    const char *broken;  /* the answer failed after it had begun: message */
    uv_work_t work;
    struct api_error work_error;
    bool working;
};

/* job_submit.c: a generation endpoint, whole. Parses the body, lets `read` fill the job from it (false: the error is
 * filled), tokenises, submits, answers. */
void job_run(struct call *c, const struct job_format *f, bool (*read)(struct job *, struct api_error *));
/* For `read`: allocates prompts; false: out of memory. */
bool job_set_prompts(struct job *j, int32_t n);

/* job.c, for job_submit.c. job_new takes the body's reference; job_free is for jobs the engine has nothing of. */
struct job *job_new(struct call *c, const struct job_format *f, json_t *body);
void job_free(struct job *j);
/* Frees the job once neither the engine nor MHD nor the pool has anything of it. */
void job_free_if_over(struct job *j);
void job_begin_stream(struct job *j);
/* A 408: nothing there is to answer with. */
void job_out_of_time(struct api_error *e, const char *before);

/* children.c: the requests to the engine that a job makes. False: e is filled. */
struct choice *job_add_choice(struct job *j, int32_t prompt, struct api_error *e); /* NULL: e is filled */
/* A request and its p->n choices; the ids are copied. */
bool job_add_child(struct job *j, int32_t prompt, const int32_t *tok, int32_t n_tok, const struct gen_params *p,
                   struct api_error *e);
/* Submits those that were added since. `field` is to blame when they are more than the queue ever takes. */
bool job_submit_children(struct job *j, const char *field, struct api_error *e);
void job_cancel_children(struct job *j);
/* The engine has nothing of them. */
bool job_children_over(const struct job *j);
/* Frees the requests that are done; their figures stay. */
void job_retire_children(struct job *j);
void job_free_children(struct job *j);
void job_usage(const struct job *j, struct job_usage *sum);
void choice_keep_token(struct choice *ch, const struct gen_event *ev, const struct tokenizer *tok);

/* Pieces shared by the formats. */
const char *finish_name(enum finish_reason f);
void write_usage(struct job *j, struct text_buf *b);

#endif
