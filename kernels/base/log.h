/* Logs: logfmt lines on stderr. Open to all floors. One line at a request's end, never one per token. */
#ifndef GALLEY_LOG_H
#define GALLEY_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level level); /* lines below it are dropped; default LOG_INFO */
/* `fmt` makes the key=value part: log_line(LOG_INFO, "request done", "id=%s tokens=%d", id, n). At most 50 lines a
 * second for each level below LOG_ERROR get through; what was dropped is counted on the next line (dropped=N). */
void log_line(enum log_level level, const char *msg, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
