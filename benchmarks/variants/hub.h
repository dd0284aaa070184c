/* The floor's own parts, and its main loop with another way to forward a chunk. */
#define main floor_main
#include "../floor.c"
#undef main

static inline int serve(const char *path, void (*forward_from)(int))
{
    struct rlimit files = {MAX_PEERS, MAX_PEERS};
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = listen_at(path);
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
                forward_from(events[i].data.fd);
        }
    }
}
