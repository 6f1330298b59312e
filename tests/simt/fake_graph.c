#include "fake_graph.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simt.h"

struct node { /* something that was queued */
    struct node *next;
    void (*run)(void *arg);
    _Alignas(16) unsigned char arg[];
};

struct CUgraphExec_st {
    struct node *first, **end;
};

static _Thread_local struct { /* stream NULL: the thread does not record */
    struct CUstream_st *stream;
    struct CUgraphExec_st *graph;
    bool spoiled;
} recording;

static atomic_long n_live;

static bool records(const struct CUstream_st *s)
{
    return s && s == recording.stream;
}

bool fake_graph_record(struct CUstream_st *s, void (*run)(void *arg), const void *arg, size_t arg_bytes)
{
    if (!records(s))
        return false;
    struct node *n = malloc(sizeof *n + arg_bytes);
    n->next = NULL;
    n->run = run;
    memcpy(n->arg, arg, arg_bytes);
    *recording.graph->end = n;
    recording.graph->end = &n->next;
    return true;
}

/* A recorded launch: the call, then its arguments. */
struct launching {
    _Alignas(16) struct simt_call call;
    _Alignas(16) unsigned char arg[];
};

static void run_launch(void *arg)
{
    struct launching *l = arg;
    l->call.arg = l->arg;
    simt_run(&l->call);
}

bool fake_graph_record_launch(struct CUstream_st *s, const struct simt_call *c)
{
    if (!records(s))
        return false;
    struct launching *l = calloc(1, sizeof *l + c->arg_bytes);
    l->call = *c;
    memcpy(l->arg, c->arg, c->arg_bytes);
    fake_graph_record(s, run_launch, l, sizeof *l + c->arg_bytes);
    free(l);
    return true;
}

int fake_graph_spoil(void)
{
    if (!recording.stream)
        return 0;
    fprintf(stderr, "fake runtime: a wait or an allocation while a graph is recorded\n");
    recording.spoiled = true;
    return FAKE_RECORDING;
}

int fake_graph_begin(struct CUstream_st *s)
{
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    recording.stream = s;
    recording.spoiled = false;
    recording.graph = calloc(1, sizeof *recording.graph);
    recording.graph->end = &recording.graph->first;
    n_live++;
    return 0;
}

int fake_graph_end(struct CUstream_st *s, struct CUgraphExec_st **out)
{
    struct CUgraphExec_st *g = recording.graph;
    bool good = records(s) && !recording.spoiled;
    recording.stream = NULL;
    recording.graph = NULL;
    *out = good ? g : NULL;
    if (!good)
        fake_graph_destroy(g);
    return good ? 0 : FAKE_SPOILED;
}

void fake_graph_run(const struct CUgraphExec_st *g, bool without_kernels)
{
    for (struct node *n = g->first; n; n = n->next)
        if (!without_kernels || n->run != run_launch)
            n->run(n->arg);
}

void fake_graph_destroy(struct CUgraphExec_st *g)
{
    if (!g)
        return;
    for (struct node *n = g->first, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    free(g);
    n_live--;
}

long fake_graph_live(void)
{
    return n_live;
}
