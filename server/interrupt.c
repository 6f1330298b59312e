#include "interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void signals_of(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
}

int interrupt_open(struct interrupt *in, struct err *e)
{
    sigset_t set;
    signals_of(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    in->end = false;
    in->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return in->fd < 0 ? err_set(e, ERR_IO, "signalfd: %s", strerror(errno)) : 0;
}

bool interrupt_take(struct interrupt *in)
{
    struct signalfd_siginfo s;
    bool came = false;
    while (read(in->fd, &s, sizeof s) == (ssize_t)sizeof s) {
        came = true;
        in->end |= s.ssi_signo != SIGINT;
    }
    return came;
}

bool interrupt_wait(struct interrupt *in, int timeout_ms)
{
    struct pollfd p = {.fd = in->fd, .events = POLLIN};
    poll(&p, 1, timeout_ms);
    return interrupt_take(in);
}

void interrupt_unblock(void)
{
    sigset_t set;
    signals_of(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

void interrupt_close(struct interrupt *in)
{
    if (in->fd >= 0)
        close(in->fd);
    in->fd = -1;
}
