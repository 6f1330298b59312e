/* Telling systemd how we are (sd_notify(3), for Type=notify); without $NOTIFY_SOCKET nothing happens. Private to
 * server/. */
#ifndef GALLEY_NOTIFY_H
#define GALLEY_NOTIFY_H

void notify_supervisor(const char *state); /* "READY=1", "STOPPING=1", "STATUS=..." */

#endif
