/* A request and its sequences, as the engine sees them. All memory is reserved at creation: the engine thread only
 * fills it. Private to engine/; the server sees engine.h. */
#ifndef GALLEY_REQUEST_H
#define GALLEY_REQUEST_H

#include <stdatomic.h>

#include "arena.h"
#include "draft/draft.h"
#include "draft/trigram_drafter.h"
#include "engine.h"
#include "plan.h"
#include "ring.h"
#include "text/stop.h"
#include "tokenizer.h"

struct contrastive;
struct gang;
struct drafter;
struct strategy_ops;
struct verified;

enum { MAX_STOP_BYTES = 4096 }; /* of one stop string */

enum seq_state {
    SEQ_IDLE,    /* a choice that waits for the first one's prompt */
    SEQ_WAITING, /* in the scheduler's waiting list; holds no blocks */
    SEQ_RUNNING, /* in its running list */
    SEQ_DONE,
};

struct seq_kv {              /* what a sequence has in one model's pool; owner: the sequence */
    int32_t n_computed;      /* tokens whose K and V are committed: positions 0..n_computed-1 */
    int32_t *block, n_block; /* block table */
    int32_t n_published;     /* leading blocks that are in the prefix cache or equal to one that is */
    uint64_t published_id;   /* content id of the last of them, or the root */
    uint64_t moved_in;       /* the lane's plan that carries moves into these blocks */
};

struct seq { /* owner: the engine thread from submission until its request is done */
    struct request *req;
    int32_t choice;
    enum seq_state state;
    struct seq *prev, *next; /* in one of the scheduler's lists */
    int32_t *out, n_out;     /* sampled tokens; [max_tokens] */
    struct seq_kv kv;        /* in the target's pool */
    struct seq_kv draft_kv;  /* in the draft model's */
    uint64_t noise_key;
    struct law_tok *law_tok; /* [n_law_tok] ascending; counts and biases */
    int32_t n_law_tok;
    struct detok detok;
    struct stop_scan stop;
    int64_t last_token_ns;
    const struct strategy_ops *strategy;
    int32_t n_want;            /* rows this step, decided by the scheduler */
    struct draft_rows rows;    /* and drafted rows after them, of `draft` */
    const struct draft *draft; /* copied, guessed from trigrams, or modelled */
    struct draft copied, guessed, modelled;
    struct copy_drafter copy;
    struct trigram_drafter trigram;
    struct drafter *drafter;         /* the model that drafts for it, or NULL */
    struct tree_rates model_rates;   /* that one's choices */
    struct verified *verified;       /* when the request names a verifier, else NULL */
    struct contrastive *contrastive; /* with DECODE_CONTRASTIVE, else NULL */
    struct gang *gang;               /* that it leads or is a member of, else NULL */
    bool live;                       /* a member that has work */
    int16_t held[DRAFT_MAX];         /* nodes of `modelled` that it has read, in the order of their slots */
    int32_t n_held, n_draft_ctx;     /* slots before them */
    int32_t exit_done;      /* of the request's exits, the deepest that this step's waves took all decided tokens to */
    int32_t span, readout0; /* in the step's plan; -1: not in it */
};

struct prompt_logprob {
    float logprob;
    int32_t rank, n_top;
};

struct choice_score {
    double score, logprob;
};

struct request {
    struct queue_node inbox; /* loop -> engine */
    struct news {            /* engine -> loop, two nodes: "there are events" and "done" */
        struct queue_node node;
        struct request *req;
        bool done;
    } news, done;
    atomic_bool news_queued;
    atomic_bool cancel;
    bool reading; /* the loop's: the oldest record of the ring is lent to its caller */

    struct engine *eng;
    struct sink *sink;
    void *user;
    struct gen_params p; /* its pointers lead into mem */
    int32_t *prompt, n_prompt;
    int32_t *prediction, n_prediction; /* what the client expects the answer to be, or nearly */
    struct stop_set stop_set;
    int32_t *ban, n_ban;           /* end tokens, banned before min_tokens */
    int32_t *user_ban, n_user_ban; /* logit_bias -100 */
    struct trigrams trigrams;      /* what its choices draft from and teach; empty: nothing */
    int32_t n_taken;               /* prompt tokens that were learnt */
    struct seq *seq;               /* [n_seq] the choices, then the members of gangs */
    int32_t n_seq, n_run;          /* choices 0..n_run-1 run; a beam search runs one for all choices */
    struct gang **gang;            /* [n_gang] */
    int32_t n_gang;
    struct choice_score *score;       /* [p.n] beam search's, else NULL */
    int32_t n_active;                 /* choices not done */
    struct prompt_logprob *prompt_lp; /* [n_prompt] or NULL */
    struct top_logprob *prompt_top;   /* [n_prompt][n_prompt_logprobs] */
    int32_t n_prompt_lp;              /* positions filled so far */
    struct ring ring;                 /* events to the loop */
    int32_t max_event_bytes;
    uint64_t order; /* arrival */
    int64_t submit_ns, deadline_ns;
    atomic_llong queued_ns, first_token_ns, total_ns;
    atomic_int n_cached, n_output, n_preempted;
    atomic_int n_predicted, n_predicted_true; /* rows drafted from the prediction; of them that came true */
    struct request_decoding decoding;         /* the engine thread's until the request is done */
    char error[256];
    struct request *prev, *next; /* all requests the engine has */
    struct arena mem;            /* everything above that is a pointer to memory */
};

static inline int32_t seq_n_tok(const struct seq *s)
{
    return s->req->n_prompt + s->n_out;
}

static inline int32_t seq_tok(const struct seq *s, int32_t i)
{
    return i < s->req->n_prompt ? s->req->prompt[i] : s->out[i - s->req->n_prompt];
}

/* The step's rows reach the sequence's last token, and its logits decide the next one. */
static inline bool seq_draws(const struct seq *s)
{
    return s->n_want > 0 && s->kv.n_computed + s->n_want == seq_n_tok(s) && s->req->p.max_tokens > 0;
}

enum { MAX_CHOICES = 128 };

/* What request_create must know of the engine. */
struct request_limits {
    int32_t n_ctx, block_len, n_block, max_seqs, max_row; /* max_row: tokens of a step */
    int32_t max_choices;                                  /* sequences of one request at once */
    bool has_draft;                                       /* there is a draft model */
    int32_t n_exit;                                       /* layers after which the model can leave */
    const int32_t *exit_layer;
    bool has_contrast; /* the back end keeps hidden states */
    bool has_ngram;    /* there is an n-gram store */
};

/* request_create without the engine; *out is NULL on error. */
int request_build(const struct request_limits *lim, const struct tokenizer *tok, const int32_t *prompt,
                  int32_t n_prompt, const struct gen_params *p, struct sink *sink, void *user, struct request **out,
                  struct err *e);

/* Appends to the law's counts; engine thread. Only sequences with penalties keep counts. */
void seq_count_token(struct seq *s, int32_t tok);

/* An event for the loop. Room for max_event_bytes was ensured before the step. */
void request_emit(struct request *r, const struct gen_event *ev);
/* Events that a step of a named verifier may say, all choices together. */
static inline int32_t verified_room(const struct request *r)
{
    return r->p.n * ((r->p.max_tokens < DRAFT_MAX ? r->p.max_tokens : DRAFT_MAX) + 2);
}
/* Free room for `n` more events of the largest size. */
bool request_has_room(const struct request *r, int32_t n);

#endif
