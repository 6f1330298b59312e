#include "listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024, NOT_OTHERS = 0117 /* umask: owner and group */ };

/* ---- A port ---- */

/* The loops share the port by SO_REUSEPORT, which would let a second server share it as well: look first. */
static int check_port_free(const struct listener *l, const struct addrinfo *a, struct err *e)
{
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int rc = fd < 0 || (l->port && bind(fd, a->ai_addr, a->ai_addrlen)) ? errno : 0;
    if (fd >= 0)
        close(fd);
    return rc ? err_set(e, ERR_IO, "cannot listen on %s port %d: %s; --port N chooses another", l->opt->host, l->port,
                        strerror(rc))
              : 0;
}

static int find_address(struct listener *l, struct err *e)
{
    char port[8];
    snprintf(port, sizeof port, "%d", l->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    int rc = getaddrinfo(l->opt->host, port, &hints, &found);
    if (rc)
        return err_set(e, ERR_INVALID, "--host %s: %s", l->opt->host, gai_strerror(rc));
    memcpy(&l->addr, found->ai_addr, found->ai_addrlen);
    rc = check_port_free(l, found, e);
    freeaddrinfo(found);
    return rc;
}

void listener_set_port(struct listener *l, int port)
{
    l->port = port;
    if (l->addr.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&l->addr)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)&l->addr)->sin_port = htons((uint16_t)port);
}

/* ---- A socket in the file system ---- */

/* A file that no server listens on any more is taken away; anything else is left as it is. */
static int clear_stale(const struct sockaddr_un *addr, struct err *e)
{
    struct stat st;
    if (lstat(addr->sun_path, &st))
        return errno == ENOENT ? 0 : err_set(e, ERR_IO, "--unix-socket %s: %s", addr->sun_path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_IO, "--unix-socket %s: there is a file of that name, which is no socket", addr->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof *addr) ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (rc != ECONNREFUSED) /* also EAGAIN: its backlog is full */
        return err_set(e, ERR_IO, "--unix-socket %s: %s", addr->sun_path,
                       rc && rc != EAGAIN ? strerror(rc) : "another server listens there");
    return unlink(addr->sun_path) && errno != ENOENT
               ? err_set(e, ERR_IO, "--unix-socket %s: cannot replace it: %s", addr->sun_path, strerror(errno))
               : 0;
}

static int open_unix(struct listener *l, const char *path, struct err *e)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof addr.sun_path)
        return err_set(e, ERR_INVALID, "--unix-socket %s: longer than the %zu bytes a socket's path may have", path,
                       sizeof addr.sun_path - 1);
    strcpy(addr.sun_path, path);
    int rc = clear_stale(&addr, e);
    if (rc)
        return rc;
    l->unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(NOT_OTHERS);
    rc = l->unix_fd < 0 || bind(l->unix_fd, (struct sockaddr *)&addr, sizeof addr) ? errno : 0;
    umask(mask);
    if (!rc && (listen(l->unix_fd, BACKLOG) || lstat(path, &st)))
        rc = errno;
    if (rc)
        return err_set(e, ERR_IO, "--unix-socket %s: %s", path, strerror(rc));
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    return 0;
}

/* ---- Either ---- */

static bool is_unix(const struct options *opt)
{
    return opt->unix_socket && *opt->unix_socket;
}

int listener_open(struct listener *l, const struct options *opt, struct err *e)
{
    *l = (struct listener){.opt = opt, .unix_fd = -1, .port = (int)opt->port, .tls = opt->tls_cert && *opt->tls_cert};
    return is_unix(opt) ? open_unix(l, opt->unix_socket, e) : find_address(l, e);
}

void listener_url(const struct listener *l, char *buf, size_t size)
{
    bool ipv6 = strchr(l->opt->host, ':');
    if (is_unix(l->opt))
        snprintf(buf, size, "unix:%s", l->opt->unix_socket);
    else
        snprintf(buf, size, "%s://%s%s%s:%d", l->tls ? "https" : "http", ipv6 ? "[" : "", l->opt->host, ipv6 ? "]" : "",
                 l->port);
}

void listener_close(struct listener *l)
{
    struct stat st;
    if (!l->opt || l->unix_fd < 0)
        return;
    if (l->ino && !lstat(l->opt->unix_socket, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
        unlink(l->opt->unix_socket);
    close(l->unix_fd);
    l->unix_fd = -1;
}
