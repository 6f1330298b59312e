/* Writing GGUF v3 files: metadata first, then the tensors' data in the order they were declared, streamed. For
 * `galley quantize` and tests. The file appears under its name only when it is complete.
 *
 *     gguf_writer_open -> put_* and gguf_put_tensor, in any order -> gguf_write_head
 *     -> gguf_write_data, as many pieces as liked -> gguf_writer_finish;  gguf_writer_close at any time
 */
#ifndef GALLEY_GGUF_WRITE_H
#define GALLEY_GGUF_WRITE_H

#include "model/gguf.h"

struct gguf_writer;

/* Takes the path's directory for the temporary file. `alignment` is a power of two from 8, or 0 for the default. */
int gguf_writer_open(struct gguf_writer **out, const char *path, uint32_t alignment, struct err *e);

/* Out of memory is remembered and reported by gguf_write_head. Keys must be new: the writer does not look. */
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_str(struct gguf_writer *w, const char *key, const char *v);
void gguf_put_strs(struct gguf_writer *w, const char *key, const struct slice *v, uint64_t n);
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, uint64_t n);
void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, uint64_t n);
void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv); /* as it was read */

/* Declares a tensor of a type dtype_info knows; rows must be whole blocks. */
int gguf_put_tensor(struct gguf_writer *w, struct slice name, int n_dim, const int64_t *dim, int type, struct err *e);

int gguf_write_head(struct gguf_writer *w, struct err *e);
/* The next bytes of the tensors' data; padding between tensors is the writer's business. */
int gguf_write_data(struct gguf_writer *w, const void *data, size_t size_bytes, struct err *e);
/* Refuses when data is missing; otherwise syncs and renames. */
int gguf_writer_finish(struct gguf_writer *w, struct err *e);
void gguf_writer_close(struct gguf_writer *w); /* removes what was not finished; NULL is legal */

#endif
