/* The least that a hub can do on one thread: what comes from one peer is sent to all the others.
 *
 * It looks at no byte, keeps no queue and waits for whoever is slow; so what it takes is what the
 * kernel takes, and the hubs are measured against it. usage: floor SOCKET
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_PEERS 65536    /* file descriptors: more than any load here connects */
#define BACKLOG 4096       /* connections: a thousand come at once */
#define CHUNK 65536        /* bytes: what one recv takes, the same as the relay */
#define EVENTS 256         /* taken from the kernel at once */
#define FULL_WAIT_MS 1000  /* until a full socket is tried again without being told */

static int peers[MAX_PEERS];
static int peer_count;

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    unlink(path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) ||
        listen(listener, BACKLOG)) {
        perror(path);
        return -1;
    }
    return listener;
}

static void watch(int poller, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void accept_all(int poller, int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        peers[peer_count++] = fd;
        watch(poller, fd);
    }
}

static void forget(int fd)
{
    for (int i = 0; i < peer_count; i++) {
        if (peers[i] == fd) {
            peers[i] = peers[--peer_count];
            break;
        }
    }
    close(fd);
}

/* A peer that fails is left: its end comes as an event of its own. */
static void send_whole(int fd, const char *data, ssize_t left)
{
    while (left > 0) {
        ssize_t sent = send(fd, data, left, MSG_NOSIGNAL);
        if (sent >= 0) {
            data += sent;
            left -= sent;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, FULL_WAIT_MS);
        } else {
            return;
        }
    }
}

static void forward(int from)
{
    static char chunk[CHUNK];
    ssize_t length = recv(from, chunk, sizeof chunk, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        forget(from);
        return;
    }
    for (int i = 0; i < peer_count; i++)
        if (peers[i] != from)
            send_whole(peers[i], chunk, length);
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fputs("usage: floor SOCKET\n", stderr);
        return 2;
    }
    struct rlimit files = {MAX_PEERS, MAX_PEERS};
    setrlimit(RLIMIT_NOFILE, &files); /* only root may; else the limit that is there must do */
    int listener = listen_at(arguments[1]);
    if (listener < 0)
        return 1;
    int poller = epoll_create1(0);
    watch(poller, listener);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(poller, listener);
            else
                forward(events[i].data.fd);
        }
    }
}
