/* A generation call's life: prompts become requests, events become text, the text becomes one JSON body or a stream.
 * What completions and chat say differently stands in their struct job_format. Owner: the loop. Private to server/.
 *
 * A job outlives its call when the client leaves: its requests are canceled, and the job goes when the engine has
 * handed back the last of them.
 */
#ifndef GALLEY_JOB_H
#define GALLEY_JOB_H

#include "params.h"

struct token_record {         /* kept when logprobs or token ids were asked for */
    int32_t tok, n_top, top0; /* top[top0 .. top0 + n_top) of the choice */
    float logprob;
    int32_t char_offset; /* characters of the pieces before it */
};

struct choice {
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
    struct request *r;
    bool submitted, done;
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
    char *rendered;
    struct { /* what the client expects the answer to be */
        struct text_buf text;
        int32_t *tok, n_tok;
    } prediction;
    bool tells_decoding; /* the answer says how it was decoded */
    struct prompt *prompt;
    int32_t n_prompt, n_done;
    struct choice *choice; /* [n_prompt * best_of] */
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

/* Pieces shared by the formats. */
const char *finish_name(enum finish_reason f);
void write_usage(struct job *j, struct text_buf *b);

#endif
