/* The floor without copies of its own: sockets are given references to pages, not bytes.
 *
 * usage: floor_splice SOCKET sendfile|tee
 *
 *   sendfile  receives into a ring in a memfd, and sends from there. A consumer that reads late
 *             gets what the ring holds by then: the bytes are not kept for it.
 *   tee       moves pages from the publisher's socket to the consumers' through pipes; no byte is
 *             ever mapped, so the hub could not look at one, and none is overwritten
 */
#include "hub.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#define RING (64 << 20)    /* bytes */
#define PIPE (1 << 20)     /* bytes, by pages: single messages take a page's slot each */

static char *ring;
static int memory;
static size_t head;
static int in[2], out[2];

static int wait_for_room(int fd)
{
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    return errno == EAGAIN && poll(&room, 1, FULL_WAIT_MS) >= 0;
}

static void forward_by_sendfile(int from)
{
    ssize_t length = recv(from, ring + head, CHUNK, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        forget(from);
        return;
    }
    for (int i = 0; i < peer_count; i++) {
        if (peers[i] == from)
            continue;
        off_t at = head, end = head + length;
        while (at < end)
            if (sendfile(peers[i], memory, &at, end - at) < 0 && !wait_for_room(peers[i]))
                break;
    }
    head += length;
    if (head > RING - CHUNK)
        head = 0;
}

/* Empty the pipe into a peer; what one that fails does not take is thrown away. */
static void drain(int pipe, int fd, ssize_t left)
{
    while (left > 0) {
        ssize_t sent = splice(pipe, NULL, fd, NULL, left, SPLICE_F_NONBLOCK);
        if (sent > 0)
            left -= sent;
        else if (sent == 0 || !wait_for_room(fd))
            break;
    }
    static char waste[CHUNK];
    while (left > 0)
        left -= read(pipe, waste, left < CHUNK ? left : CHUNK);
}

static void forward_by_tee(int from)
{
    ssize_t length = splice(from, NULL, in[1], NULL, CHUNK, SPLICE_F_NONBLOCK);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        forget(from);
        return;
    }
    int last = peer_count - 1;
    while (last >= 0 && peers[last] == from)
        last--;
    for (int i = 0; i < last; i++)
        if (peers[i] != from)
            drain(out[0], peers[i], tee(in[0], out[1], length, 0));
    drain(in[0], last < 0 ? -1 : peers[last], length);
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fputs("usage: floor_splice SOCKET sendfile|tee\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* there is no MSG_NOSIGNAL here */
    if (!strcmp(arguments[2], "tee")) {
        if (pipe(in) || pipe(out) || fcntl(in[0], F_SETPIPE_SZ, PIPE) < 0 ||
            fcntl(out[0], F_SETPIPE_SZ, PIPE) < 0)
            return 1;
        return serve(arguments[1], forward_by_tee);
    }
    memory = memfd_create("log", 0);
    if (memory < 0 || ftruncate(memory, RING))
        return 1;
    ring = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0);
    if (ring == MAP_FAILED)
        return 1;
    return serve(arguments[1], forward_by_sendfile);
}
