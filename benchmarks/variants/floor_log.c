/* The floor, but what it receives goes through a large ring, as through the relay's log: shows what
 * memory costs that is no longer in a cache when its turn comes again.
 *
 * usage: floor_log SOCKET plain|huge|fresh|fresh-huge
 *
 *   plain       pages of 4 KiB, touched before the first message
 *   huge        the same with huge pages
 *   fresh       pages are given back at the end of each lap: every touch is a page's first
 *   fresh-huge  the same with huge pages
 */
#include "hub.h"
#include <stdint.h>
#include <sys/mman.h>

#define RING (64 << 20)   /* bytes: twice the third-level cache here */
#define HUGE (2 << 20)    /* bytes: how a huge page is aligned */

static char *ring;
static size_t head;
static int fresh;

static void forward_through_log(int from)
{
    ssize_t length = recv(from, ring + head, CHUNK, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        forget(from);
        return;
    }
    for (int i = 0; i < peer_count; i++)
        if (peers[i] != from)
            send_whole(peers[i], ring + head, length);
    head += length;
    if (head > RING - CHUNK) {
        head = 0;
        if (fresh)
            madvise(ring, RING, MADV_DONTNEED);
    }
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fputs("usage: floor_log SOCKET plain|huge|fresh|fresh-huge\n", stderr);
        return 2;
    }
    fresh = strstr(arguments[2], "fresh") != NULL;
    char *memory =
        mmap(NULL, RING + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    ring = memory + (-(uintptr_t)memory & (HUGE - 1));
    int huge = strstr(arguments[2], "huge") != NULL;
    if (madvise(ring, RING, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
        perror("madvise");
    if (!fresh)
        memset(ring, 1, RING);
    return serve(arguments[1], forward_through_log);
}
