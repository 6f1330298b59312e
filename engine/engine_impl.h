/* The engine's insides: one struct, passed to the few files that together are the engine. Private to engine/. */
#ifndef GALLEY_ENGINE_IMPL_H
#define GALLEY_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "backend.h"
#include "cost.h"
#include "draft/ledger.h"
#include "engine.h"
#include "kv.h"
#include "metrics.h"
#include "model/model.h"
#include "ngram/ngram.h"
#include "request.h"
#include "wake.h"

struct lane { /* one model on one back end, with its pool. Owner: the engine thread once started */
    const struct backend_ops *ops;
    struct backend *backend;
    struct bmodel *model;
    struct kv_pool pool;
    struct plan_env env;
    struct step_plan plan;
    struct step_result result;
    struct kvop *move; /* [plan.cap.n_kvop] copies that the next plan must carry */
    int32_t n_move;
    uint64_t n_plan;       /* plans whose moves have run */
    bool caches;           /* prefixes are kept and shared */
    struct step_cost cost; /* of its steps */
};

struct seq_list {
    struct seq *head, *tail; /* in rank order: priority, arrival, choice */
    int32_t n;
};

/* A model that drafts: one of its own, or the target's first layers (S2D, autoregressive.md section 13), whose K and V
 * are the target's own, in slots that verifying writes again. */
struct drafter {
    struct lane *lane;       /* NULL: there is none */
    struct step_cost *cost;  /* of its waves; of the first exit's */
    int32_t n_layer;         /* of the lane's model that a wave runs, unless a request names exits */
    bool is_exit;            /* the target's first layers */
    struct tree_rates rates; /* how often its choices come true, over all sequences */
};

enum { DRAFTER_MODEL, DRAFTER_EXIT, N_DRAFTER };

struct step_gain {          /* what a step's drafts are worth; owner: drafting.c */
    int64_t from_ns;        /* drafting began */
    uint64_t n_token;       /* said before it */
    double plain, expected; /* tokens a second without drafts (0: there are none), and with them */
};

struct step_books {               /* what `auto` asked for in a step and what came of it; owner: books.c */
    double price;                 /* seconds in which a step without drafts makes a token */
    double spent[N_DRAFT_SOURCE]; /* seconds of asking */
    int32_t n_row[N_DRAFT_SOURCE], n_true[N_DRAFT_SOURCE];
    int32_t n_token, n_auto; /* tokens that the step yields without drafts; `auto`'s */
    int32_t n_drafted;       /* rows, of all requests */
};

_Static_assert((int)N_DRAFT_SOURCE <= (int)LEDGER_SOURCES, "an account for each");

enum { MAX_WOKEN = 16 };

struct engine {
    struct engine_options opt;
    struct model model, draft_model;
    struct ngram *ngram;       /* NULL without a store */
    struct lane target, draft; /* draft.model is NULL when there is none */
    struct request_limits limits;
    char memory_plan[2048];

    /* the engine thread's */
    struct request *requests; /* all it has, newest first */
    struct seq_list waiting, running;
    int32_t n_place; /* of limits.max_seqs that running sequences take; a gang takes all it may need */
    uint64_t next_order;
    int64_t now_ns;                /* at the start of the step */
    struct sink *woken[MAX_WOKEN]; /* to wake at the end of the step */
    int32_t n_woken;
    struct metrics metrics;
    struct accept_rates copy_rates; /* how often copies come true, over all sequences */
    struct trigram_source *trigram; /* trigrams.c's; NULL: nothing is ever drafted */
    struct drafter drafter[N_DRAFTER];
    struct step_cost exit_cost[MAX_EXIT]; /* of waves to the model's exits */
    struct wave *wave;                    /* waves.c's */
    struct step_gain gain;                /* of this step */
    struct step_books books;
    struct draft_ledger ledger;
    int32_t n_since_plain, plain_every; /* steps since one without drafts of `auto`'s, and how many there may be */
    char *text;                         /* one token's text and whatever was held back before it */

    /* shared */
    struct queue inbox;
    struct wake wake;
    pthread_t thread;
    bool started;
    atomic_bool stop, draining, failed;
    atomic_llong heartbeat_ns;
    atomic_int n_pending, n_queued; /* submitted and not done; of them not yet running */
};

/* ---- seq.c: a sequence's blocks and tokens ---- */

/* Takes what the prefix cache holds of the tokens, all but the last at most; sets n_computed. */
void seq_match_prefix(struct lane *lane, const struct seq *s, struct seq_kv *kv);
/* Blocks for n_slot slots after n_computed, none of them shared: copies are queued as moves. False: not enough blocks;
 * what was taken stays the sequence's. */
bool seq_reserve(struct lane *lane, struct seq_kv *kv, int32_t n_slot);
/* Gives back what is reserved beyond n_slot slots after n_computed. */
void seq_trim(struct lane *lane, struct seq_kv *kv, int32_t n_slot);
/* n more tokens are computed: full blocks are published. */
void seq_commit(struct lane *lane, const struct seq *s, struct seq_kv *kv, int32_t n);
/* The token of a drafted row is decided: what stands at the row's slot becomes the next computed token's. False: no
 * room for the move; nothing is changed. */
bool seq_commit_row(struct lane *lane, const struct seq *s, struct seq_kv *kv, int32_t slot);
/* `to` becomes a copy of what `from` has computed; both share all blocks. No moves into its blocks may be pending. */
void seq_fork(struct lane *lane, const struct seq_kv *from, struct seq_kv *to);
void seq_give_back(struct lane *lane, struct seq_kv *kv); /* all blocks; n_computed = 0 */
void seq_release(struct engine *eng, struct seq *s);      /* in both pools */

/* ---- output.c: what a sequence says ---- */

struct sampled { /* a token that was decided, and what goes with it to the client */
    int32_t tok;
    float logprob;
    int32_t rank, n_top;
    const struct top_logprob *top;
};
/* Appends the token, looks for ends, emits. Returns false when the sequence is finished by it. */
bool seq_accept(struct engine *eng, struct seq *s, const struct sampled *t);
/* Ends a sequence that is waiting or running; the last one of a request hands the request back. */
void seq_finish(struct engine *eng, struct seq *s, enum finish_reason why, int32_t stop_id, const char *stop_text);
/* The text state of a sequence that goes on from another's tokens. */
void seq_copy_text(struct seq *to, const struct seq *from);
/* For texts that are only tried: takes the token, and says whether it completes a stop string. */
bool seq_try_text(struct engine *eng, struct seq *s, int32_t tok);
/* The token ends an answer of this request. */
bool seq_ends_at(const struct engine *eng, const struct seq *s, int32_t tok);
/* Ends all sequences of a request, wherever they are. */
void request_finish(struct engine *eng, struct request *r, enum finish_reason why);

/* ---- sched.c ---- */

void sched_add(struct engine *eng, struct seq *s);    /* to the waiting list */
void sched_remove(struct engine *eng, struct seq *s); /* from whichever list it is in */
void sched_run(struct engine *eng, struct seq *s);    /* to the running list */
/* Decides n_want of every running sequence, admits, preempts. Returns the rows of the step. */
int32_t sched_pick(struct engine *eng);

/* ---- drafting.c: drafts beside the tokens that must be computed ---- */

/* The model that drafts for a request, or NULL: for `auto` the draft model, where there is one. */
struct drafter *drafter_of(struct engine *eng, const struct decoding_params *d);
static inline enum draft_source drafter_source(const struct drafter *by)
{
    return by->is_exit ? DRAFT_SOURCE_EXIT : DRAFT_SOURCE_MODEL;
}
/* Decides the drafted rows of every running sequence, in a step that has n_row rows and room for `spare` more. -ERR_*:
 * the draft model failed. */
int drafting_pick(struct engine *eng, int32_t n_row, int32_t spare, struct err *e);
/* All of the step was settled: what its drafts were worth, beside what was expected of them and what they cost. */
void drafting_settle(struct engine *eng);
/* A step of the sequence was settled; and a drafted token came true, i others before it. */
void drafting_count_step(struct engine *eng, struct seq *s);
void drafting_count_true(struct engine *eng, struct seq *s, int32_t i);

/* ---- step.c ---- */

/* One step; returns false when there was nothing to do. */
bool engine_step(struct engine *eng);

/* ---- setup.c ---- */

int engine_setup(struct engine *eng, struct err *e);
void engine_teardown(struct engine *eng);

#endif
