"""What the compiled code asks of Linux; the manual pages are those of the functions' names."""

cdef extern from "<errno.h>" nogil:
    int ESHUTDOWN


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int POLLOUT


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        epoll_data_t data
    int epoll_wait(int, epoll_event *, int, int)


cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int, void *, size_t, int)
    ssize_t c_send "send"(int, const void *, size_t, int)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL


cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME


cdef extern from "<poll.h>" nogil:
    int ppoll(pollfd *, unsigned long, const timespec *, const void *)
