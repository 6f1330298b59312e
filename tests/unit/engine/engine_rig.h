/* An engine over the fake back end, stepped by hand, and what its requests say. */
#ifndef GALLEY_TEST_ENGINE_RIG_H
#define GALLEY_TEST_ENGINE_RIG_H

#include "engine_impl.h"
#include "random_plan.h"

enum { MAX_OUT = 1600, MAX_CHOICE = 10 };

struct heard { /* all that a request said */
    int32_t tok[MAX_CHOICE][MAX_OUT], n_tok[MAX_CHOICE];
    float logprob[MAX_CHOICE][MAX_OUT];
    float gap[MAX_CHOICE][MAX_OUT]; /* between the two likeliest tokens, in nats; with n_logprobs of 2 or more */
    char text[MAX_CHOICE][8 * MAX_OUT];
    int32_t n_text[MAX_CHOICE];
    enum finish_reason finish[MAX_CHOICE];
    const char *stop_text;
    bool done;
    struct request *r;
};

extern struct engine *eng;
extern struct sink rig_sink;
extern const struct backend_ops *rig_ops; /* what open_engine runs on; the fake unless a test says otherwise */
extern const char *const rig_backend[3];  /* fake, ref and cpu, for loops over them */

/* A model file with random weights; before and after each test. */
void rig_setup(void);
void rig_teardown(void);
/* The model can leave after its first layer. */
void rig_add_exit(void);
/* The model has so many layers, the first of which are always the same, and leaves after each of the n named
 * (galley.early_exit_layers). */
void rig_add_exits(int32_t n_layer, const int32_t *layer, int32_t n);
/* A draft model for the engines opened from now on; the target's own weights are those of seed 1 without a flaw. */
void rig_add_draft(uint64_t seed, float flaw);

void open_engine(int32_t n_ctx, int32_t n_block, int32_t batch, int32_t max_seqs);
/* A model file of the test's own. */
void rig_open_model(const char *model, const char *kv_type, int32_t n_ctx, int32_t max_seqs);
/* What opening an engine on the model says. */
int rig_open_error(struct err *e);
/* Every block must be back, and the pool consistent. */
void close_engine(void);

void random_prompt(struct rnd *r, int32_t *tok, int32_t n);
struct heard *ask(const int32_t *prompt, int32_t n, const struct gen_params *p);
void hear(struct heard *h); /* takes the events that are there */
void listen_all(void);      /* of every request with news */
void step(void);            /* a step, the pool's self-check, and listening */
void finish(struct heard *h);
struct heard *ask_and_finish(const int32_t *prompt, int32_t n, const struct gen_params *p);
void forget(struct heard *h);
/* The same tokens, text and ends; log-probabilities bit for bit. */
void expect_same(const struct heard *a, const struct heard *b);

/* Greedy, never ending by itself, an event for each token. */
struct gen_params params(int32_t max_tokens);
struct gen_params params_of_way(enum decode_strategy strategy, int32_t max_tokens);

#endif
