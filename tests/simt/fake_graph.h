/* Graphs of the fake runtime: what a thread queues on a stream while it records, kept with its arguments as they were
 * then, to be run in order later. Any number of threads may record, each on a stream of its own. */
#ifndef GALLEY_FAKE_GRAPH_H
#define GALLEY_FAKE_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

struct CUstream_st;
struct CUgraphExec_st;
struct simt_call;

/* Codes as the real runtime has them: cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated. */
enum { FAKE_RECORDING = 900, FAKE_SPOILED = 901 };

/* While the calling thread records `s`: keeps run(arg), with a copy of arg, and returns true. For copies, collectives
 * and whatever else is queued on streams. */
bool fake_graph_record(struct CUstream_st *s, void (*run)(void *arg), const void *arg, size_t arg_bytes);
bool fake_graph_record_launch(struct CUstream_st *s, const struct simt_call *c);

/* Something that may not happen while the calling thread records: FAKE_RECORDING then, and the recording is lost; else
 * 0. */
int fake_graph_spoil(void);

int fake_graph_begin(struct CUstream_st *s);
/* 0 and the graph, owned by the caller; or FAKE_SPOILED. */
int fake_graph_end(struct CUstream_st *s, struct CUgraphExec_st **out);
void fake_graph_run(const struct CUgraphExec_st *g, bool without_kernels);
void fake_graph_destroy(struct CUgraphExec_st *g); /* NULL is legal */
long fake_graph_live(void);                        /* graphs not destroyed */

#endif
