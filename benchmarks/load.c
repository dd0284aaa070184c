/* Publishes to a hub and reads what it delivers, over connections that are open already.
 *
 * usage: load HUB_PID FRAME_HEX OFFSET DELIVERED BATCH RANDOM RATE SECONDS WARM_UP PUBLISHER
 *             CONSUMER...
 *
 *   HUB_PID    whose CPU time is measured; 0 for none
 *   FRAME_HEX  what the publisher sends for one message, the message at OFFSET in it
 *   DELIVERED  bytes that a consumer is sent for one message
 *   BATCH      messages in one write
 *   RANDOM     bytes at the end of each message of a write that are unlike those of all others
 *   RATE       messages a second, each write at its time; 0 for as many as go in SECONDS
 *   WARM_UP    messages sent beforehand, unmeasured
 *   PUBLISHER, CONSUMER  connected sockets, as numbers of open files
 *
 * A consumer's messages are found by their magic, whatever hub it is. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#define NS 1000000000LL
#define RECEIVE (128 << 10)       /* bytes: more than half of what fits a Unix socket */
#define MESSAGE 216               /* bytes */
#define SEQUENCE 8                /* offsets in the message, as the protocol has them */
#define TIMESTAMP 16
#define CHECKSUM 28
#define PAYLOAD 32
#define FRAME_MAX 512             /* bytes: a message and any hub's words around it */
#define PROBE_MS 10               /* between probes, which tell when a consumer has joined */
#define QUIET_MS 50               /* without a byte: nothing is under way any more */
#define PATIENCE (5 * NS)         /* without a byte, while some are missing: they are lost */
#define JOIN_PATIENCE (60 * NS)   /* for all consumers to have a probe */
#define SPREAD (NS / 20)          /* from the start to the first timed message */
#define TIMER_SLACK_NS 1          /* not the usual 50 us: messages are to go out when due */

static const unsigned char MAGIC[4] = {0xEF, 0xBE, 0xAD, 0xDE};

struct consumer {
    int fd;
    uint64_t bytes, messages;     /* received in this run; messages only of a timed one */
    size_t torn;                  /* bytes kept of a message that has not come whole */
    unsigned char kept[MESSAGE];
};

static struct {
    unsigned char frame[FRAME_MAX];
    size_t frame_size, offset, delivered, random;
    int publisher, poller;
    struct consumer *consumers;
    int count;
} load;

/* One run: of so many messages, or until a time. */
static struct {
    size_t batch;
    double rate;
    uint64_t limit;
    int64_t started, seconds_ns;
    _Atomic uint64_t sent;
    _Atomic int finished, failed;
    int64_t last_byte;
    int64_t *latencies;           /* ns, of a timed run */
    size_t latency_count;
} run;

static int64_t now_of(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time))
        return 0;
    return time.tv_sec * NS + time.tv_nsec;
}

/* The header's timestamps are of this clock; so is all else, to be compared with them. */
static int64_t now(void)
{
    return now_of(CLOCK_REALTIME);
}

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* ---- Messages ---- */

static uint32_t crc32_of(uint32_t crc, const unsigned char *data, size_t size)
{
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? 0xEDB88320 : 0);
            table[i] = value;
        }
    }
    crc = ~crc;
    while (size--)
        crc = crc >> 8 ^ table[(crc ^ *data++) & 0xFF];
    return ~crc;
}

/* xorshift64, https://doi.org/10.18637/jss.v008.i14: nothing that a compressor could use. */
static void randomize(unsigned char *data, size_t size)
{
    static uint64_t state = 88172645463325252;
    while (size--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *data++ = state >> 32;
    }
}

static void stamp(unsigned char *message, uint64_t sequence, int64_t timestamp)
{
    randomize(message + MESSAGE - load.random, load.random);
    memcpy(message + SEQUENCE, &sequence, sizeof sequence);
    memcpy(message + TIMESTAMP, &timestamp, sizeof timestamp);
    uint32_t crc = crc32_of(0, message, CHECKSUM);
    crc = crc32_of(crc, message + PAYLOAD, MESSAGE - PAYLOAD);
    memcpy(message + CHECKSUM, &crc, sizeof crc);
}

/* ---- The publisher's thread ---- */

static int send_whole(const unsigned char *data, size_t left)
{
    while (left) {
        ssize_t sent = send(load.publisher, data, left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return -1;
        if (sent > 0) {
            data += sent;
            left -= sent;
        }
    }
    return 0;
}

/* How many messages the next write has. */
static size_t next_batch(uint64_t sent)
{
    return run.limit - sent < run.batch ? run.limit - sent : run.batch;
}

/* Make the messages of the next write. */
static void fill(unsigned char *batch, uint64_t sent, int64_t timestamp)
{
    size_t messages = next_batch(sent);
    /* Not timed, they have times of their own all the same: a compressor shall not gain by that. */
    for (size_t i = 0; i < messages; i++) {
        unsigned char *frame = batch + i * load.frame_size;
        memcpy(frame, load.frame, load.frame_size);
        stamp(frame + load.offset, sent + i + 1, run.rate ? timestamp : now());
    }
}

static int publish_at_once(unsigned char *batch)
{
    fill(batch, 0, now());
    run.started = now();
    uint64_t sent = 0;
    int status = 0;
    while (!status && sent < run.limit && now() - run.started < run.seconds_ns) {
        size_t messages = next_batch(sent);
        status = send_whole(batch, messages * load.frame_size);
        sent += messages;
    }
    run.sent = sent;
    return status;
}

/* Open loop: a message's time is when it is due, whether or not the one before could be sent by
 * then. It is made before, and the thread sleeps: on few cores spinning would take the hub's. */
static int publish_in_time(unsigned char *batch)
{
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    int64_t first = now() + SPREAD;
    run.started = first;
    int status = 0;
    uint64_t sent = 0;
    while (!status && sent < run.limit) {
        int64_t due = first + (int64_t)(sent * (NS / run.rate));
        fill(batch, sent, due);
        struct timespec time = {.tv_sec = due / NS, .tv_nsec = due % NS};
        while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &time, NULL) == EINTR)
            ;
        size_t messages = next_batch(sent);
        status = send_whole(batch, messages * load.frame_size);
        sent += messages;
    }
    run.sent = sent;
    return status;
}

static void *publish(void *unused)
{
    (void)unused;
    unsigned char *batch = malloc(run.batch * load.frame_size);
    run.failed = (run.rate ? publish_in_time(batch) : publish_at_once(batch)) != 0;
    free(batch);
    run.finished = 1;
    return NULL;
}

/* ---- The consumers ---- */

/* Note the latency of each message, and keep a torn one. A message counts if it is the next. */
static void find_messages(struct consumer *to, unsigned char *data, size_t size)
{
    int64_t received = now();
    unsigned char *at, *end = data + size;
    while ((at = memmem(data, end - data, MAGIC, sizeof MAGIC)) && end - at >= MESSAGE) {
        uint64_t sequence;
        int64_t due;
        memcpy(&sequence, at + SEQUENCE, sizeof sequence);
        memcpy(&due, at + TIMESTAMP, sizeof due);
        if (sequence == to->messages + 1) {
            to->messages++;
            run.latencies[run.latency_count++] = received - due;
        }
        data = at + MESSAGE;
    }
    if (!at) /* no more than a part of the magic can be there */
        at = end - data < (long)sizeof MAGIC ? data : end - sizeof MAGIC + 1;
    to->torn = end - at;
    memcpy(to->kept, at, to->torn);
}

static void receive(struct consumer *from)
{
    static unsigned char buffer[MESSAGE + RECEIVE];
    if (!from) { /* what a hub answers to a publisher is of no interest, but must be taken */
        if (recv(load.publisher, buffer, RECEIVE, MSG_DONTWAIT) == 0)
            run.failed = 1;
        return;
    }
    memcpy(buffer, from->kept, from->torn);
    ssize_t size = recv(from->fd, buffer + from->torn, RECEIVE, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) { /* the hub has closed: no more will come */
        epoll_ctl(load.poller, EPOLL_CTL_DEL, from->fd, NULL);
        return;
    }
    from->bytes += size;
    if (run.latencies)
        find_messages(from, buffer, from->torn + size);
}

/* Receive what is there, and wait for it if need be. Return 0 if nothing came in time. */
static int receive_ready(int wait_ms)
{
    struct epoll_event events[256];
    int ready = epoll_wait(load.poller, events, 256, wait_ms);
    for (int i = 0; i < ready; i++)
        receive(events[i].data.ptr);
    if (ready > 0)
        run.last_byte = now();
    return ready > 0;
}

static uint64_t received_by(const struct consumer *consumer)
{
    return run.latencies ? consumer->messages : consumer->bytes / load.delivered;
}

static int all_have(uint64_t messages)
{
    for (int i = 0; i < load.count; i++)
        if (received_by(&load.consumers[i]) < messages)
            return 0;
    return 1;
}

static void forget_received(void)
{
    for (int i = 0; i < load.count; i++)
        load.consumers[i].bytes = load.consumers[i].messages = load.consumers[i].torn = 0;
}

/* Publish on a thread and read until all consumers have all, or nothing comes any more. */
static void publish_and_receive(void)
{
    pthread_t thread;
    forget_received();
    run.sent = 0;
    run.finished = run.failed = 0;
    run.last_byte = now();
    if (pthread_create(&thread, NULL, publish, NULL))
        fail("pthread_create");
    while (!(run.finished && all_have(run.sent)) && !run.failed) {
        if (!receive_ready(PROBE_MS) && run.finished && now() - run.last_byte > PATIENCE)
            break;
    }
    if (run.failed)
        fail("the hub closed on the publisher");
    pthread_join(thread, NULL);
}

/* Consumers that have only connected may not be known to the hub yet. */
static void wait_until_joined(void)
{
    int64_t until = now() + JOIN_PATIENCE;
    while (!all_have(1)) {
        if (now() > until || send_whole(load.frame, load.frame_size))
            fail("not all consumers could join");
        int64_t next = now() + PROBE_MS * (NS / 1000);
        while (!all_have(1) && now() < next)
            receive_ready(PROBE_MS);
    }
    while (receive_ready(QUIET_MS))
        ;
}

/* ---- The result ---- */

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double percentile_us(double part)
{
    if (!run.latency_count)
        return 0;
    size_t index = part * run.latency_count;
    return run.latencies[index < run.latency_count ? index : run.latency_count - 1] / 1e3;
}

static void report(int64_t hub_ns, int64_t reader_ns)
{
    uint64_t delivered = 0, least = UINT64_MAX;
    for (int i = 0; i < load.count; i++) {
        uint64_t received = received_by(&load.consumers[i]);
        delivered += received;
        least = received < least ? received : least;
    }
    qsort(run.latencies, run.latency_count, sizeof *run.latencies, compare);
    printf("{\"sent\": %llu, \"delivered\": %llu, \"least_delivered\": %llu, \"seconds\": %.9f, "
           "\"hub_cpu_seconds\": %.9f, \"reader_cpu_seconds\": %.9f, \"p50_us\": %.3f, "
           "\"p99_us\": %.3f, \"max_us\": %.3f}\n",
           (unsigned long long)run.sent, (unsigned long long)delivered, (unsigned long long)least,
           (run.last_byte - run.started) / 1e9, hub_ns / 1e9, reader_ns / 1e9,
           percentile_us(0.5), percentile_us(0.99), percentile_us(1));
}

/* ---- The command line ---- */

static void read_frame(const char *hex)
{
    load.frame_size = strlen(hex) / 2;
    if (load.frame_size > FRAME_MAX || load.frame_size < load.offset + MESSAGE)
        exit(2);
    for (size_t i = 0; i < load.frame_size; i++)
        sscanf(hex + 2 * i, "%2hhx", &load.frame[i]);
    stamp(load.frame + load.offset, 1, now());
}

static void watch(int fd, struct consumer *consumer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = consumer};
    if (epoll_ctl(load.poller, EPOLL_CTL_ADD, fd, &event))
        fail("epoll_ctl");
}

static void take_sockets(int count, char **numbers)
{
    load.poller = epoll_create1(0);
    load.publisher = atoi(numbers[0]);
    watch(load.publisher, NULL);
    load.count = count - 1;
    load.consumers = calloc(load.count, sizeof *load.consumers);
    for (int i = 0; i < load.count; i++) {
        load.consumers[i].fd = atoi(numbers[i + 1]);
        watch(load.consumers[i].fd, &load.consumers[i]);
    }
}

int main(int count, char **arguments)
{
    if (count < 12) {
        fputs("usage: see load.c\n", stderr);
        return 2;
    }
    pid_t hub = atoi(arguments[1]);
    load.offset = strtoul(arguments[3], NULL, 10);
    load.delivered = strtoul(arguments[4], NULL, 10);
    size_t batch = strtoul(arguments[5], NULL, 10);
    load.random = strtoul(arguments[6], NULL, 10);
    double rate = atof(arguments[7]), seconds = atof(arguments[8]);
    read_frame(arguments[2]);
    take_sockets(count - 10, arguments + 10);

    wait_until_joined();
    run.batch = batch;
    run.seconds_ns = JOIN_PATIENCE;
    run.limit = strtoull(arguments[9], NULL, 10);
    publish_and_receive();

    clockid_t hub_clock;
    if (hub && clock_getcpuclockid(hub, &hub_clock))
        fail("clock_getcpuclockid");
    run.rate = rate;
    run.limit = rate ? (uint64_t)(rate * seconds) : UINT64_MAX;
    run.seconds_ns = seconds * NS;
    if (rate)
        run.latencies = calloc(run.limit * load.count, sizeof *run.latencies);
    int64_t hub_before = hub ? now_of(hub_clock) : 0;
    int64_t reader_before = now_of(CLOCK_THREAD_CPUTIME_ID);
    publish_and_receive();
    int64_t reader_ns = now_of(CLOCK_THREAD_CPUTIME_ID) - reader_before;
    report(hub ? now_of(hub_clock) - hub_before : 0, reader_ns);
    return 0;
}
