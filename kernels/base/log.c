#include "log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LINES_PER_SECOND = 50 };

static atomic_int min_level = LOG_INFO;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    time_t second;
    int n_line, n_dropped;
} rate[LOG_ERROR];

void log_set_level(enum log_level level)
{
    atomic_store(&min_level, (int)level);
}

/* Under the lock. Returns how many lines were dropped before this one, or -1 to drop it too. */
static int rate_admit(enum log_level level, time_t now)
{
    if (level >= LOG_ERROR)
        return 0;
    if (rate[level].second != now) {
        rate[level].second = now;
        rate[level].n_line = 0;
    }
    if (rate[level].n_line++ >= LINES_PER_SECOND) {
        rate[level].n_dropped++;
        return -1;
    }
    int dropped = rate[level].n_dropped;
    rate[level].n_dropped = 0;
    return dropped;
}

void log_line(enum log_level level, const char *msg, const char *fmt, ...)
{
    static const char *const name[] = {"debug", "info", "warn", "error"};
    if ((int)level < atomic_load_explicit(&min_level, memory_order_relaxed))
        return;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    char when[32], line[1024];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);

    pthread_mutex_lock(&lock);
    int dropped = rate_admit(level, ts.tv_sec);
    pthread_mutex_unlock(&lock);
    if (dropped < 0)
        return;

    int cap = (int)sizeof line - 1; /* room for the newline */
    int n =
        snprintf(line, sizeof line, "ts=%s.%03ldZ level=%s msg=\"%s\" ", when, ts.tv_nsec / 1000000, name[level], msg);
    if (dropped > 0 && n < cap)
        n += snprintf(line + n, sizeof line - (size_t)n, "dropped=%d ", dropped);
    if (n < cap) {
        va_list ap;
        va_start(ap, fmt);
        n += vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
        va_end(ap);
    }
    if (n > cap)
        n = cap;
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0) /* one write: lines of several threads never mix */
        return;
}
