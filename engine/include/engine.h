/* The engine as the server sees it: requests go in, events come out; nothing of tensors. Any thread may create and
 * submit requests; everything else about a request happens on its owner's thread.
 *
 *   struct request *r;
 *   if (!request_create(eng, prompt, n_prompt, &params, &sink, user, &r, &e) && !engine_submit(eng, r, &e)) ...
 *   ... sink.wake() is called; then on the sink's thread:
 *   while (sink_next(&sink, &r, &done)) {
 *       while (request_next_event(r, &ev)) ...;
 *       if (done) request_free(r);
 *   }
 *
 * Ownership of a request: its creator until engine_submit returns 0, then the engine, then the sink's thread again once
 * sink_next has returned it with `done`. In between its creator may call request_next_event, engine_cancel and the
 * getters that say so.
 */
#ifndef GALLEY_ENGINE_H
#define GALLEY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "queue.h"

struct engine;
struct request;
struct tokenizer;
struct model_info;
struct backend_ops;

/* ---- Starting and stopping ---- */

struct engine_options {
    const char *model_path;        /* GGUF file or Hugging Face directory */
    const char *draft_path;        /* GGUF with the same vocabulary, or NULL */
    const char *quantization;      /* "none" (NULL), or "fp8": both models' matrices of F32, F16 or BF16 become FP8, but
                                      for routers, the head and those whose rows are no multiple of 128 */
    const char *backend;           /* "auto", "ref", "cpu", ... */
    const struct backend_ops *ops; /* tests: used instead of `backend` when not NULL */
    int32_t n_thread;              /* 0: one for each available physical core */
    const char *pin;               /* what its threads are kept to: "node" (NULL), "core" or "off" */
    const char *repack_cache;      /* folder where weights are kept as the back end packed them, or NULL */
    int32_t tensor_parallel;       /* devices that share each model, at most 64; 0: one */
    bool deterministic;            /* a device too gives bitwise the same results in any batch, at some cost */
    int32_t n_ctx;            /* longest sequence, prompt and answer; 0: the model's own, as far as kv memory allows */
    size_t kv_mem_bytes;      /* 0: chosen from n_ctx and free memory */
    const char *kv_type;      /* element type of K and V: "f16" (NULL), "f32", "bf16", or "q8_0" and "fp8", which are 8
                                 bits and a scale in the form that the back end has. The memory plan says what it is */
    int32_t max_batch_tokens; /* rows of a step; 0: 512 */
    int32_t max_seqs;         /* sequences that run at once; 0: 64 */
    int32_t max_choices;    /* sequences of one request at once, beams and trials included; 0: max_seqs, at most 128 */
    int32_t max_queue;      /* requests that may wait; 0: 1024 */
    int32_t max_draft;      /* drafted tokens of a sequence in a step, whatever a request asks; 0: 64 */
    bool no_drafts;         /* never draft */
    const char *ngram_path; /* n-gram store (`galley ngram build`) for Superposed Decoding and trigrams, or NULL */
    bool no_contrastive;    /* keep no hidden states: contrastive search is refused, and the KV cache is smaller */
    bool no_prefix_cache;
    int (*progress)(void *arg, size_t done, size_t total); /* while loading; nonzero stops it */
    void *progress_arg;
};

/* Loads the model and reserves all memory; the engine thread does not run yet. Errors name the file and tensor, or the
 * option and a value that would fit. */
int engine_open(const struct engine_options *opt, struct engine **out, struct err *e);
int engine_start(struct engine *eng, struct err *e);
/* From now on engine_submit refuses; running and queued requests go on. */
void engine_drain(struct engine *eng);
/* Cancels what is left, delivers it to its sinks, joins the thread. */
void engine_stop(struct engine *eng);
void engine_close(struct engine *eng); /* after engine_stop, or instead of it when never started; NULL is legal */

/* For a person, a line each: the back ends of this binary, and whether this machine can use them. */
void engine_backends(char *out, size_t size_bytes);
/* A table for a person: memory plan and devices, several lines, NUL-terminated, valid while the engine lives. */
const char *engine_memory_plan(const struct engine *eng);
const struct model_info *engine_model(const struct engine *eng);
const struct tokenizer *engine_tokenizer(const struct engine *eng);
int32_t engine_n_ctx(const struct engine *eng);
int32_t engine_max_n(const struct engine *eng); /* choices that one request can have */

/* Nanoseconds since the engine thread last showed life (at least once a second when idle). Any thread. */
int64_t engine_heartbeat_age_ns(const struct engine *eng);
/* The back end broke: nothing will be served any more; the process should end. Any thread. */
bool engine_failed(const struct engine *eng);
/* Requests submitted and not yet done. Any thread. */
int32_t engine_n_pending(const struct engine *eng);

struct sampling_defaults { /* of requests that do not say: generation_config.json, general.sampling.* */
    bool has_temperature, has_top_p, has_min_p, has_top_k, has_repetition_penalty;
    float temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
};

struct model_info {
    char name[128];            /* general.name, or the file's name without .gguf, or the directory's */
    const char *chat_template; /* Jinja source, NULL when the file has none */
    int32_t n_vocab, n_ctx_train;
    uint64_t n_param;
    char quant[32]; /* "Q8_0": the type most weights have */
    const char *architecture;
    struct sampling_defaults sampling;
};

/* ---- Requests ---- */

struct logit_bias {
    int32_t tok;
    float bias;
};

enum decode_strategy {                     /* how a request is decoded */
                       DECODE_AUTO,        /* whatever draft pays, none included */
                       DECODE_OFF,         /* token by token */
                       DECODE_SPECULATIVE, /* drafts of the named source whenever it has any */
                       /* what follows changes the text, and is done only when asked for */
                       DECODE_CAUTIOUS,    /* several trials of a segment where the model is unsure (CNTP) */
                       DECODE_CONTRASTIVE, /* what is likely and unlike what was said (SimCTG) */
                       DECODE_BEAM,        /* the likeliest texts, in groups that differ (Diverse Beam Search) */
                       DECODE_SUPERPOSED   /* several short drafts at the cost of one (Superposed Decoding) */
};

/* Drafts are made and verified: what comes out is plain decoding's. */
static inline bool decodes_exactly(enum decode_strategy s)
{
    return s <= DECODE_SPECULATIVE;
}

enum draft_source {
    DRAFT_SOURCE_AUTO,
    DRAFT_SOURCE_COPY,
    DRAFT_SOURCE_MODEL,
    DRAFT_SOURCE_EXIT, /* the target's own first layers */
    DRAFT_SOURCE_TRIGRAM
};
enum { N_DRAFT_SOURCE = DRAFT_SOURCE_TRIGRAM + 1 };

enum draft_scope {                      /* from whose text the trigram table learns */
                   DRAFT_SCOPE_REQUEST, /* the request's */
                   DRAFT_SCOPE_TENANT   /* that of all who ask for it with the same cache_salt */
};

enum decode_verify {                     /* autoregressive.md, section 17 */
                     DECODE_VERIFY_AUTO, /* as NSS */
                     DECODE_VERIFY_NSS,  /* draws by position and compares: the text does not depend on what was drafted
                                          */
                     DECODE_VERIFY_NAIVE, /* from here on only the law is kept, not a seed's text; drafts of the model
                                           */
                     DECODE_VERIFY_RRS,
                     DECODE_VERIFY_KSEQ,
                     DECODE_VERIFY_GREEDY,
                     DECODE_VERIFY_BLOCK,
                     DECODE_VERIFY_TRAVERSAL
};

enum decode_sampling {                       /* how the children of a tree's node are drawn for a named verifier */
                       DECODE_SAMPLING_AUTO, /* what suits the verifier */
                       DECODE_SAMPLING_IID,
                       DECODE_SAMPLING_WOR,
                       DECODE_SAMPLING_GREEDY,
                       DECODE_SAMPLING_SBS,   /* stochastic beam search: `width` paths of each depth (RSD-S) */
                       DECODE_SAMPLING_DYSPEC /* as many of a node as its chance to be reached is worth (DySpec) */
};

enum {
    CAUTIOUS_MAX_TRIALS = 32,
    CAUTIOUS_MAX_SEGMENT = 256,
    CAUTIOUS_MAX_ENDS = 32,
    CONTRASTIVE_MAX_K = 16,
    BEAM_MAX = 32,
    SUPERPOSED_MAX_TOKENS = 20,
    MAX_EXIT = 8 /* early exits of a model */
};

/* autoregressive.md, section 3 */
struct cautious_params {
    float h_min, h_max;                 /* [0.01], [1.5] nats: below, one trial; above, all of them */
    int32_t max_trials, max_segment;    /* [10] 1..32; [64] 1..256 tokens */
    bool by_paper;                      /* the paper's formula for the number of trials, not its code's */
    const char *end[CAUTIOUS_MAX_ENDS]; /* what ends a segment; none: . , newline ? ! : ; ) ] } */
    int32_t n_end;
};

/* autoregressive.md, section 10. Temperature 0 counts as 1: a one-hot law leaves nothing to weigh. */
struct contrastive_params {
    float alpha; /* [0.6] 0..1: weight of unlikeness */
    int32_t k;   /* [4] 1..16 candidates */
};

/* autoregressive.md, section 11. Temperature 0 counts as 1. */
struct beam_params {
    int32_t width, n_group; /* [4] 2..32 beams, [1] in as many groups, which divide them */
    float diversity;        /* [0.5] what a token costs for each beam of an earlier group that chose it */
    float length_penalty;   /* [1] a text's score is divided by its tokens to this power */
    bool early_stopping;    /* [false] end with the first `width` texts that ended */
};

/* autoregressive.md, section 2. Without resets a request has SUPERPOSED_MAX_TOKENS at most: further on the mixture says
 * nothing. */
struct superposition_params {
    int32_t n_draft;     /* [0: 3, or n] 1..10; a request's choices are the best of them */
    int32_t n_top;       /* [0] three for each draft; 1..64 tokens considered at a place */
    float alpha, tau;    /* [0.54] 0..1, the weight of the n-grams; [0.06] 0.01..10, of the shared distribution */
    bool rescore;        /* [true] rank the drafts by their exact log-probability a token, not by the method's score */
    int32_t reset_every; /* [0] never; 1..20: after so many tokens one draft is drawn (temperature 0: the best is
                            taken), and the others begin again behind it */
};

/* What is drafted is verified: up to DECODE_SPECULATIVE nothing changes the law of the text, and only a verifier asked
 * for by name the text of a seed. */
struct decoding_params {
    enum decode_strategy strategy;
    enum draft_source source;
    enum draft_source fallback; /* [AUTO] none. Source COPY: MODEL or EXIT drafts where nothing can be copied */
    enum draft_scope scope;
    int32_t max_draft; /* [0] auto's choice, the paper's 10 (copy), 5 (model) or 8 (trigram) when speculative; 1..64
                          drafted tokens a step */
    float threshold;   /* [0] 0..1: a model's chain ends before a token that the drafter's own law (at temperature 0: of
                          temperature 1) gives a smaller probability. Not of trees, nor with a named verifier, whose draws
                          must not be taken back */
    struct {           /* S2D: a chain from several early exits, the next deeper one asked where one is unsure */
        int32_t n;     /* [0] the model's first exit alone */
        int32_t layer[MAX_EXIT];   /* ascending; exits that the model names */
        float threshold[MAX_EXIT]; /* 0..1: an exit is sure where its likeliest token has a larger probability; where
                                      the last is not, the chain ends */
    } exits;
    struct {           /* speculative from the model: a tree instead of a chain */
        int32_t nodes; /* [0] a chain; 1..64 */
        int32_t width; /* [0] 2; 1..8 children of a node */
        int32_t depth; /* [0] 8; 1..64 */
        enum decode_sampling sampling;
        float threshold; /* [0] DySpec: `nodes` is this request's share in the step's draws, which go where they are
                            worth most; above 0, up to 1: draws worth less are not made, nor more than `nodes` */
    } tree;
    enum decode_verify verify;
    int32_t min_match; /* [0] 3; 1..16 tokens that must agree before copying starts */
    struct cautious_params cautious;
    struct contrastive_params contrastive;
    struct beam_params beam;
    struct superposition_params superposed;
};

/* Neutral values in brackets. Everything pointed to is copied by request_create, which checks every range and names the
 * field, as an OpenAI client spells it, in its error. */
struct gen_params {
    float temperature;             /* [1] >= 0; 0 is greedy */
    float top_p, min_p;            /* [1] (0, 1]; [0] [0, 1] */
    float typical_p;               /* [1] (0, 1] */
    float top_h;                   /* [0] off, or (0, 1] */
    int32_t top_k;                 /* [0] off; >= 0 */
    int32_t top_h_mode;            /* enum top_h_mode: [0] partial, 1 entropy */
    int32_t top_h_n;               /* [100] */
    float repetition_penalty;      /* [1] > 0 */
    float frequency_penalty;       /* [0] -2..2 */
    float presence_penalty;        /* [0] -2..2 */
    const struct logit_bias *bias; /* -100..100 each; -100 bans */
    int32_t n_bias;
    bool has_seed; /* same seed, same text, under any load */
    uint64_t seed;
    int32_t max_tokens; /* >= 1; -1: what is left of the context. 0: only prompt_logprobs are wanted */
    int32_t min_tokens; /* [0] end tokens are banned before */
    int32_t n;          /* [1] sequences; each is a choice; at most engine_max_n */
    int32_t choice0; /* [0] a seed's draws are those of choices choice0.. of one large request: several can share it */
    bool ignore_eos;
    bool include_stop;       /* keep the stop string in the text */
    bool keep_special;       /* text of special tokens is emitted as well */
    const char *const *stop; /* UTF-8, none empty */
    int32_t n_stop;
    const int32_t *stop_ids;
    int32_t n_stop_ids;
    int32_t n_logprobs;        /* [-1] none; k >= 0: the sampled token's and the k likeliest; at most 20, and at most
                                  MAX_RANKED when max_tokens is 1 */
    int32_t n_prompt_logprobs; /* [-1] */
    bool emit_tokens;          /* an event for each token, even when its text is held back */
    int32_t priority;          /* [0] lower runs first, as in vLLM */
    int64_t timeout_ns;        /* [0] none; counted from submission */
    const char *cache_salt;    /* [NULL] prefixes are shared only among equal salts */
    struct decoding_params decoding;
    const int32_t *prediction; /* [NULL] what the answer is expected to be, or nearly (OpenAI's predicted outputs) */
    int32_t n_prediction;
    bool no_cache; /* neither use nor fill the prefix cache */
};

enum { MAX_RANKED = 256 }; /* next tokens that a request for one token can be told in their order */

void gen_params_init(struct gen_params *p); /* the neutral values; max_tokens 16 */
/* Where a seed's text need not stay the same: names the verifier that suits temperature and shape of the draft model's
 * drafts (autoregressive.md, section 17). */
void gen_params_best_verifier(struct gen_params *p);

enum finish_reason {
    FINISH_NONE,
    FINISH_STOP,     /* an end token, a stop string or a stop id */
    FINISH_LENGTH,   /* max_tokens, or the context is full */
    FINISH_CANCELED, /* engine_cancel or engine_stop */
    FINISH_DEADLINE,
    FINISH_ERROR, /* the model failed; see request_error */
};

struct top_logprob {
    int32_t tok;
    float logprob; /* natural, of the logits as the model gives them */
};

struct gen_event { /* text and top are borrowed until the next call for this request */
    int32_t choice;
    int32_t tok;   /* -1: text or an end without a new token */
    float logprob; /* of tok, when n_logprobs >= 0 */
    int32_t rank;  /* of tok among the logits: 0 is the likeliest; when n_logprobs >= 0 */
    int32_t n_top;
    const struct top_logprob *top;
    const char *text; /* n_text bytes of valid UTF-8, never a part of a code point or of a stop string */
    int32_t n_text;
    enum finish_reason finish; /* not FINISH_NONE: this choice's last event */
    int32_t stop_id;           /* with FINISH_STOP: the token id that ended it, -1: a stop string did */
    const char *stop_text;     /* with FINISH_STOP: the stop string, or NULL */
};

struct sink { /* one for each consuming thread; owned by it; zeroed at first */
    struct queue q;
    struct queue_node *drained;   /* taken from q, not yet returned by sink_next */
    void (*wake)(struct sink *s); /* called from the engine thread, at most once a step; must not block */
};

/* Copies prompt and parameters and reserves all the memory the request will ever use. -ERR_INVALID names the field;
 * -ERR_TOOLONG: prompt and max_tokens do not fit the context or the KV cache, ever. */
int request_create(struct engine *eng, const int32_t *prompt, int32_t n_prompt, const struct gen_params *p,
                   struct sink *sink, void *user, struct request **out, struct err *e);
/* -ERR_BUSY: the queue is full or the engine drains; the request stays the caller's. */
int engine_submit(struct engine *eng, struct request *r, struct err *e);
/* Ends the request within one step; it still arrives at its sink. Any thread, while the request is not done. */
void engine_cancel(struct engine *eng, struct request *r);
void request_free(struct request *r); /* NULL is legal */

/* The next request with news. `done`: the engine has let go of it; drain its events, then it is the caller's. */
bool sink_next(struct sink *s, struct request **r, bool *done);
bool request_next_event(struct request *r, struct gen_event *ev);

void *request_user(const struct request *r);

struct request_usage {
    int32_t n_prompt, n_cached; /* prompt tokens; of them found in the prefix cache */
    int32_t n_output;           /* all choices */
    int32_t n_preempted;
    int32_t n_predicted, n_predicted_true;       /* drafted from the prediction; of them that came true */
    int64_t queued_ns, first_token_ns, total_ns; /* from submission */
};
/* Once an event has been received for n_cached and times so far, all of it once done. */
void request_usage(const struct request *r, struct request_usage *u);

enum { DECODING_POSITIONS = 64 };

struct request_decoding { /* what decoding did, over all choices */
    int64_t n_step;       /* steps that yielded tokens */
    int64_t n_drafted, n_accepted;
    int64_t drafted_at[DECODING_POSITIONS], accepted_at[DECODING_POSITIONS]; /* by depth in the draft */
    int32_t width;     /* trials or beams it had at most: fewer than asked for where the server runs fewer at once */
    int64_t n_segment; /* cautious: segments tried more than once; their tokens count as drafted, the best one's as
                          accepted */
};
/* Once done. */
const struct request_decoding *request_decoding(const struct request *r);

/* Beam search and Superposed Decoding: a choice's score by the method (beams: over its length), and its summed
 * log-probability, NaN where it is not known. False: another strategy. */
bool request_score(const struct request *r, int32_t choice, double *score, double *logprob);

const char *request_error(const struct request *r); /* once done with FINISH_ERROR */

/* Prompt token i's log-probability given those before it (i >= 1); top[] as in gen_event. Valid once a token event or
 * the end has been received. */
void request_prompt_logprob(const struct request *r, int32_t i, float *logprob, int32_t *rank, int32_t *n_top,
                            const struct top_logprob **top);

/* ---- Metrics ---- */

enum { HIST_MAX_BUCKET = 24 };

struct histogram {
    int32_t n_bucket;
    const double *bound;                 /* [n_bucket] upper bounds, ascending; +Inf is implied */
    uint64_t count[HIST_MAX_BUCKET + 1]; /* not cumulative */
    double sum;
};

struct engine_metrics { /* a snapshot; counters since start */
    uint64_t n_output_tokens, n_steps, n_preempted;
    uint64_t n_drafts, n_draft_tokens, n_accepted_tokens; /* drafts verified, their tokens, those that came true */
    uint64_t n_drafted_by[N_DRAFT_SOURCE], n_accepted_by[N_DRAFT_SOURCE]; /* tokens, by where they came from */
    double expected_by[N_DRAFT_SOURCE];   /* of them, how many were expected to come true */
    uint64_t n_auto_step[N_DRAFT_SOURCE]; /* steps of `auto`, by what it chose; AUTO: no draft */
    uint64_t n_gain;                      /* steps with drafts; sums of their tokens a second against no drafts': */
    double gain_expected, gain;           /* as was expected beforehand, and as it came */
    double auto_asking_s[N_DRAFT_SOURCE]; /* that `auto` spent on asking sources */
    uint64_t n_trigram_search;            /* searches of trigram tables; their time */
    double trigram_search_s;
    uint64_t n_verified, n_optimum;             /* steps of named verifiers; of them sampled: */
    double optimum, optimum_accepted;           /* sums: best possible chance of keeping the first draft; kept */
    uint64_t n_moved;                           /* slots copied because a branch came true and not the likeliest path */
    uint64_t n_accepted_at[DECODING_POSITIONS]; /* by place in the draft */
    uint64_t n_cache_query_tokens, n_cache_hit_tokens;
    uint64_t n_finished[FINISH_ERROR + 1]; /* choices, by enum finish_reason */
    uint64_t n_rejected;                   /* refused by engine_submit: queue full or draining */
    int32_t n_running, n_waiting;
    int32_t n_block, n_block_used, n_block_cached; /* used + cached + free == n_block */
    int32_t block_len;
    struct histogram queue_s, first_token_s, inter_token_s, total_s, prompt_tokens, output_tokens, step_rows;
};
void engine_metrics(const struct engine *eng, struct engine_metrics *m); /* any thread */

#endif
