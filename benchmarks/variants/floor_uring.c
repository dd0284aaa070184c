/* The floor by io_uring: one system call for a chunk, with the sends to all and the wait for the
 * next in it, where the floor needs two and one for each consumer. usage: floor_uring SOCKET
 *
 * The kernel receives by itself into whichever buffer is free (multishot). As in the floor, the
 * sends of a chunk are to be done before the next chunk is sent on: that keeps the order.
 */
#include "hub.h"
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define ENTRIES 4096       /* of the submission queue; it is submitted when full */
#define BUFFERS 4          /* of a chunk each, to be in the second-level cache; a power of two */
#define GROUP 0

enum what { ACCEPT, RECEIVE, SEND };

/* What came and is not sent on yet: as many as there are buffers. */
struct chunk {
    int from, buffer;
    uint32_t length;
};

static int uring;
static unsigned *sq_tail, *cq_head, *cq_tail, sq_mask, cq_mask, unsubmitted;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static struct io_uring_buf_ring *free_buffers;
static char buffers[BUFFERS][CHUNK];
static struct chunk chunks[BUFFERS];
static unsigned first_chunk, end_chunk;
static int sending;              /* sends under way, all of the first chunk */
static int starved[MAX_PEERS];   /* peers whose receiving ended for want of a buffer */
static int starved_count;

static void enter(unsigned wanted)
{
    int done = syscall(SYS_io_uring_enter, uring, unsubmitted, wanted,
                       wanted ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
    if (done > 0)
        unsubmitted -= done;
    else if (done < 0 && errno != EINTR && errno != EBUSY) {
        perror("io_uring_enter");
        exit(1);
    }
}

static struct io_uring_sqe *request(enum what what, int opcode, int fd)
{
    if (unsubmitted == ENTRIES)
        enter(0);
    unsigned tail = *sq_tail;
    struct io_uring_sqe *sqe = &sqes[tail & sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->user_data = (uint64_t)what << 32 | (unsigned)fd;
    __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
    unsubmitted++;
    return sqe;
}

static void receive_from(int fd)
{
    struct io_uring_sqe *sqe = request(RECEIVE, IORING_OP_RECV, fd);
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
}

static void accept_from(int listener)
{
    request(ACCEPT, IORING_OP_ACCEPT, listener)->ioprio = IORING_ACCEPT_MULTISHOT;
}

static void give_buffer(int number)
{
    unsigned short tail = free_buffers->tail;
    struct io_uring_buf *buffer = &free_buffers->bufs[tail & (BUFFERS - 1)];
    buffer->addr = (uintptr_t)buffers[number];
    buffer->len = CHUNK;
    buffer->bid = number;
    __atomic_store_n(&free_buffers->tail, tail + 1, __ATOMIC_RELEASE);
}

static void send_chunk(const struct chunk *chunk)
{
    for (int i = 0; i < peer_count; i++) {
        if (peers[i] == chunk->from)
            continue;
        struct io_uring_sqe *sqe = request(SEND, IORING_OP_SEND, peers[i]);
        sqe->addr = (uintptr_t)buffers[chunk->buffer];
        sqe->len = chunk->length;
        sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL; /* what a full socket leaves is sent later */
        sending++;
    }
}

static void received(int fd, const struct io_uring_cqe *cqe)
{
    if (cqe->res > 0)
        chunks[end_chunk++ % BUFFERS] =
            (struct chunk){fd, cqe->flags >> IORING_CQE_BUFFER_SHIFT, cqe->res};
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    if (cqe->res > 0 || cqe->res == -ENOBUFS)
        starved[starved_count++] = fd;
    else
        forget(fd);
}

static void handle(const struct io_uring_cqe *cqe)
{
    int fd = (int)cqe->user_data;
    switch ((enum what)(cqe->user_data >> 32)) {
    case ACCEPT:
        if (cqe->res >= 0) {
            peers[peer_count++] = cqe->res;
            receive_from(cqe->res);
        }
        if (!(cqe->flags & IORING_CQE_F_MORE))
            accept_from(fd);
        break;
    case RECEIVE:
        received(fd, cqe);
        break;
    case SEND:
        if (--sending == 0)
            give_buffer(chunks[first_chunk++ % BUFFERS].buffer);
        break;
    }
}

static void handle_all(void)
{
    unsigned at = *cq_head, end = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
    for (; at != end; at++)
        handle(&cqes[at & cq_mask]);
    __atomic_store_n(cq_head, at, __ATOMIC_RELEASE);
}

static int set_up(void)
{
    /* Not DEFER_TASKRUN: it wakes who waits for several completions only when as many things have
     * happened, so what is left of a send to a full socket would wait for the publisher. */
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = 4 * ENTRIES,
    };
    uring = syscall(SYS_io_uring_setup, ENTRIES, &params);
    if (uring < 0)
        return -1;
    size_t size = params.sq_off.array + ENTRIES * sizeof(unsigned); /* it lies behind the rest */
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    char *rings = mmap(NULL, size, protection, flags, uring, IORING_OFF_SQ_RING);
    sqes = mmap(NULL, ENTRIES * sizeof *sqes, protection, flags, uring, IORING_OFF_SQES);
    free_buffers = mmap(NULL, BUFFERS * sizeof(struct io_uring_buf), protection,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rings == MAP_FAILED || sqes == MAP_FAILED || free_buffers == MAP_FAILED)
        return -1;
    sq_tail = (unsigned *)(rings + params.sq_off.tail);
    sq_mask = ENTRIES - 1;
    unsigned *order = (unsigned *)(rings + params.sq_off.array);
    for (unsigned i = 0; i < ENTRIES; i++)
        order[i] = i;
    cq_head = (unsigned *)(rings + params.cq_off.head);
    cq_tail = (unsigned *)(rings + params.cq_off.tail);
    cq_mask = params.cq_entries - 1;
    cqes = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
    struct io_uring_buf_reg group = {
        .ring_addr = (uintptr_t)free_buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    if (syscall(SYS_io_uring_register, uring, IORING_REGISTER_PBUF_RING, &group, 1))
        return -1;
    for (int i = 0; i < BUFFERS; i++)
        give_buffer(i);
    return 0;
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fputs("usage: floor_uring SOCKET\n", stderr);
        return 2;
    }
    if (set_up()) {
        perror("io_uring");
        return 1;
    }
    int listener = listen_at(arguments[1]);
    if (listener < 0)
        return 1;
    fcntl(listener, F_SETFL, 0); /* else io_uring would not wait for it either */
    accept_from(listener);
    for (;;) {
        while (!sending && first_chunk != end_chunk) {
            send_chunk(&chunks[first_chunk % BUFFERS]);
            if (!sending) /* there is nobody else */
                give_buffer(chunks[first_chunk++ % BUFFERS].buffer);
        }
        if (end_chunk - first_chunk < BUFFERS)
            while (starved_count)
                receive_from(starved[--starved_count]);
        /* All sends of this chunk, and something new if nothing is there and something can come. */
        enter(sending + (end_chunk - first_chunk < 2 && !starved_count));
        handle_all();
    }
}
