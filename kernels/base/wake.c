#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

int wake_create(struct wake *w, struct err *e)
{
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return w->fd < 0 ? err_set(e, ERR_IO, "eventfd: %s", strerror(errno)) : 0;
}

void wake_free(struct wake *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

void wake_post(struct wake *w)
{
    uint64_t one = 1;
    while (write(w->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void wake_wait(struct wake *w, int timeout_ms)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    uint64_t count;
    if (poll(&p, 1, timeout_ms) > 0)
        while (read(w->fd, &count, sizeof count) < 0 && errno == EINTR)
            ;
}

int64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}
