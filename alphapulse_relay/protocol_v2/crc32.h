/* CRC-32 (IEEE 802.3, reflected, as zlib's) of a Protocol V2 message, without its checksum field.
 *
 * By carry-less multiplication where the CPU has it, of 64 bytes at a time (VPCLMULQDQ) or 16
 * (PCLMULQDQ), by tables of eight bytes at a time elsewhere; chosen at run time. The method is that
 * of V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
 * (Intel, 2009). So is the form of the constants: x^n modulo the polynomial, reflected, one bit to
 * the left.
 *
 * A CRC is a sum: each block of a message contributes itself times x^n, n being how many bits
 * follow it. So the last blocks are multiplied each by the power for its own place, which takes as
 * many multiplications as folding each onto the next, but none has to wait for another. Only a long
 * message's other blocks are folded, four lanes of them, onto these.
 *
 * Leading zeros do not change a CRC whose register is zero. So instead of handling a message's odd
 * bytes at its end, they are put first, behind zeros, and all that follows is whole blocks.
 */
#ifndef ALPHAPULSE_CRC32_H
#define ALPHAPULSE_CRC32_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HEADER_SIZE 32
#define CHECKSUM_OFFSET 28 /* bytes before the checksum field */
#define CHECKSUM_SIZE 4

static uint32_t crc_table[8][256];

static void crc32_make_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        crc_table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int slice = 1; slice < 8; slice++) {
            uint32_t crc = crc_table[slice - 1][byte];
            crc_table[slice][byte] = crc_table[0][crc & 0xFF] ^ crc >> 8;
        }
}

static uint32_t crc32_portable_update(uint32_t crc, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low = crc ^ (data[0] | data[1] << 8 | data[2] << 16 | (uint32_t)data[3] << 24);
        crc = crc_table[7][low & 0xFF] ^ crc_table[6][low >> 8 & 0xFF] ^
              crc_table[5][low >> 16 & 0xFF] ^ crc_table[4][low >> 24] ^ crc_table[3][data[4]] ^
              crc_table[2][data[5]] ^ crc_table[1][data[6]] ^ crc_table[0][data[7]];
    }
    while (size--) crc = crc_table[0][(crc ^ *data++) & 0xFF] ^ crc >> 8;
    return crc;
}

static uint32_t crc32_message_portable(const uint8_t *message, size_t size) {
    uint32_t crc = crc32_portable_update(~0u, message, CHECKSUM_OFFSET);
    return ~crc32_portable_update(crc, message + HEADER_SIZE, size - HEADER_SIZE);
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* What to multiply the last 512 bytes by, eight with each: the last eight with x^32, those before
 * them with x^96, and so on. Each product has 96 bits at most, the sum of them is congruent to the
 * message times x^32, and the CRC is its remainder. */
static uint64_t crc32_weights[64] __attribute__((aligned(64)));

/* -64 to 63. From the n-th before the 0 on: how far each place of a block is behind its n-th. */
static int8_t crc32_places[128];

static void crc32_make_constants(void) {
    static const uint8_t zeros[8];
    uint32_t power = 0xEDB88320u; /* x^32 */
    for (int i = 63; i >= 0; i--) {
        crc32_weights[i] = (uint64_t)power << 1;
        power = crc32_portable_update(power, zeros, 8);
    }
    for (int i = 0; i < 128; i++) crc32_places[i] = (int8_t)(i - 64);
}

static inline const void *crc32_weights_of_last(size_t bytes) {
    return (const uint8_t *)(crc32_weights + 64) - bytes;
}

#define CLMUL __attribute__((target("pclmul,sse4.1")))

/* Fold a block of 16 bytes over a distance, given by the two constants, onto another. */
CLMUL static inline __m128i crc32_fold(__m128i block, __m128i distance, __m128i onto) {
    __m128i low = _mm_clmulepi64_si128(block, distance, 0x00);
    __m128i high = _mm_clmulepi64_si128(block, distance, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

CLMUL static inline __m128i crc32_load(const uint8_t *data) {
    return _mm_loadu_si128((const __m128i *)data);
}

/* Multiply a block by its weights; with it begin the `left` bytes that are left. */
CLMUL static inline __m128i crc32_weigh(__m128i block, size_t left, __m128i onto) {
    return crc32_fold(block, _mm_load_si128((const __m128i *)crc32_weights_of_last(left)), onto);
}

/* Reduce 96 bits, one bit to the left in the register, to the CRC by Barrett's method: times
 * x^95 / P gives the quotient, and that times P cancels all but the remainder. */
CLMUL static inline uint32_t crc32_reduce(__m128i bits) {
    const __m128i barrett = _mm_set_epi64x(0x01db710641, (long long)0xb4e5b025f7011641);
    __m128i quotient = _mm_clmulepi64_si128(bits, barrett, 0x00);
    __m128i multiple = _mm_clmulepi64_si128(quotient, barrett, 0x10);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(bits, multiple), 2);
}

/* Shuffle controls: from a place in it, bytes 0-15 (or 0-11) at that distance, zeros around them. */
static const uint8_t crc32_place16[80] __attribute__((aligned(16))) = {
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128};
static const uint8_t crc32_place12[80] __attribute__((aligned(16))) = {
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128};

CLMUL static inline __m128i crc32_place(__m128i bytes, const uint8_t *control, long distance) {
    return _mm_shuffle_epi8(bytes, crc32_load(control + 32 + distance));
}

CLMUL static uint32_t crc32_message_clmul(const uint8_t *message, size_t size) {
    const __m128i by64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4); /* x^480, x^544 */
    size_t payload = size - HEADER_SIZE;
    if (payload < 16) return crc32_message_portable(message, size);
    long odd = payload & 15, zeros = 48 - CHECKSUM_OFFSET - odd;
    size_t left = payload - odd + 48;
    const uint8_t *end = message + size;

    /* Three blocks of zeros, the header and the payload's odd bytes; the register begins with all
     * bits set, which is the same as the first 32 bits inverted. */
    __m128i head = _mm_xor_si128(crc32_load(message), _mm_setr_epi32(~0, 0, 0, 0));
    __m128i rest = crc32_load(message + 16), payload_odd = crc32_load(message + HEADER_SIZE);
    __m128i a = crc32_place(head, crc32_place16, -zeros);
    __m128i b = _mm_or_si128(crc32_place(head, crc32_place16, 16 - zeros),
                             crc32_place(rest, crc32_place12, -zeros));
    __m128i c = _mm_or_si128(
        _mm_or_si128(crc32_place(head, crc32_place16, 32 - zeros),
                     crc32_place(rest, crc32_place12, 16 - zeros)),
        crc32_place(payload_odd, crc32_place16, 4 - zeros));
    __m128i d = crc32_load(end - left + 48);

    /* Four lanes hide the latency of a multiplication. */
    for (; left >= 128; left -= 64) {
        a = crc32_fold(a, by64, crc32_load(end - left + 64));
        b = crc32_fold(b, by64, crc32_load(end - left + 80));
        c = crc32_fold(c, by64, crc32_load(end - left + 96));
        d = crc32_fold(d, by64, crc32_load(end - left + 112));
    }
    __m128i sum = crc32_weigh(a, left, crc32_weigh(b, left - 16, _mm_setzero_si128()));
    sum = crc32_weigh(c, left - 32, crc32_weigh(d, left - 48, sum));
    for (left -= 64; left; left -= 16) sum = crc32_weigh(crc32_load(end - left), left, sum);
    return ~crc32_reduce(sum);
}

#define VPCLMUL __attribute__((target("pclmul,sse4.1,vpclmulqdq,avx512f,avx512bw,avx512vbmi")))

VPCLMUL static inline __m512i crc32_fold64(__m512i block, __m512i distance, __m512i onto) {
    __m512i low = _mm512_clmulepi64_epi128(block, distance, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(block, distance, 0x11);
    return _mm512_ternarylogic_epi64(low, high, onto, 0x96);
}

VPCLMUL static inline __m512i crc32_load64(const uint8_t *data) {
    return _mm512_loadu_si512((const void *)data);
}

VPCLMUL static inline __m512i crc32_weigh64(__m512i block, size_t left, __m512i onto) {
    return crc32_fold64(block, _mm512_load_si512(crc32_weights_of_last(left)), onto);
}

/* The first 64 bytes of the message without its checksum field. What is behind the message is not
 * read. The register begins with all bits set: that is the same as the first 32 bits inverted. */
VPCLMUL static inline __m512i crc32_begin64(const uint8_t *message, size_t size) {
    const __m256i inverted = _mm256_setr_epi32(~0, 0, 0, 0, 0, 0, 0, 0);
    size_t missing = size - CHECKSUM_SIZE < 64 ? 64 - (size - CHECKSUM_SIZE) : 0;
    __mmask64 payload = ~0ull >> missing & ~0ull << CHECKSUM_OFFSET;
    __m256i header = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)message), inverted);
    return _mm512_mask_loadu_epi8(_mm512_castsi256_si512(header), payload, message + CHECKSUM_SIZE);
}

/* Of a long message, two blocks of which are loaded: fold all but the last 256 to 448 bytes onto
 * the first four blocks, and return the weighed sum of these. `behind` becomes what is left. */
VPCLMUL static inline __m512i crc32_stream64(__m512i a, __m512i b, const uint8_t *end,
                                             size_t *behind) {
    const __m512i by256 = /* x^2016, x^2080 */
        _mm512_set4_epi64(0x01322d1430, 0x011542778a, 0x01322d1430, 0x011542778a);
    size_t left = *behind;
    __m512i c = crc32_load64(end - left + 128), d = crc32_load64(end - left + 192);
    for (; left >= 512; left -= 256) {
        a = crc32_fold64(a, by256, crc32_load64(end - left + 256));
        b = crc32_fold64(b, by256, crc32_load64(end - left + 320));
        c = crc32_fold64(c, by256, crc32_load64(end - left + 384));
        d = crc32_fold64(d, by256, crc32_load64(end - left + 448));
    }
    *behind = left - 256;
    __m512i sum = crc32_weigh64(b, left - 64, crc32_weigh64(a, left, _mm512_setzero_si512()));
    return crc32_weigh64(d, left - 192, crc32_weigh64(c, left - 128, sum));
}

/* Add up four blocks of 16 bytes, which are weighed, and reduce. */
VPCLMUL static inline uint32_t crc32_reduce64(__m512i sum) {
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
    return crc32_reduce(
        _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

VPCLMUL static inline __attribute__((always_inline)) uint32_t
crc32_message_vpclmul(const uint8_t *message, size_t size) {
    size_t left = (size - CHECKSUM_SIZE + 63) & ~(size_t)63, zeros = left - (size - CHECKSUM_SIZE);
    const uint8_t *end = message + size;

    /* The first block is zeros and the message's beginning. What of that has no room in it goes
     * round to the second block's start; of the header it is needed there, the rest is loaded. The
     * masks are comparisons' results, because moves from general registers take longer. */
    __m512i place = crc32_load64((const uint8_t *)crc32_places + 64 - zeros);
    __m512i turned = _mm512_permutexvar_epi8(place, crc32_begin64(message, size));
    __mmask64 begun = _mm512_cmpge_epi8_mask(place, _mm512_setzero_si512());
    __mmask64 loaded = _mm512_cmpge_epi8_mask(place, _mm512_set1_epi8(CHECKSUM_OFFSET - 64));
    __m512i first = _mm512_maskz_mov_epi8(begun, turned), sum = _mm512_setzero_si512();
    if (left == 64) return ~crc32_reduce64(crc32_weigh64(first, left, sum));
    __m512i second = _mm512_mask_loadu_epi8(turned, loaded, end - left + 64);

    if (left > 512) {
        sum = crc32_stream64(first, second, end, &left);
    } else {
        sum = crc32_weigh64(second, left - 64, crc32_weigh64(first, left, sum));
        left -= 128;
    }
    for (; left; left -= 64) sum = crc32_weigh64(crc32_load64(end - left), left, sum);
    return ~crc32_reduce64(sum);
}
#endif

typedef uint32_t (*crc32_message_function)(const uint8_t *message, size_t size);
static crc32_message_function crc32_message = crc32_message_portable;

/* Compute checksums by that method from now on; tell whether this CPU can. */
static int crc32_use(const char *method) {
    crc32_message_function chosen = strcmp(method, "table") ? NULL : crc32_message_portable;
    crc32_make_tables();
#ifdef CLMUL
    crc32_make_constants();
    __builtin_cpu_init();
    if (!strcmp(method, "pclmul") && __builtin_cpu_supports("pclmul") &&
        __builtin_cpu_supports("sse4.1"))
        chosen = crc32_message_clmul;
    if (!strcmp(method, "vpclmul") && __builtin_cpu_supports("vpclmulqdq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi"))
        chosen = crc32_message_vpclmul;
#endif
    if (chosen) crc32_message = chosen;
    return chosen != NULL;
}

/* Call once before the first checksum; returns the name of the method. */
static const char *crc32_choose(void) {
    static const char *const methods[] = {"vpclmul", "pclmul", "table"};
    int best = 0;
    while (!crc32_use(methods[best])) best++;
    return methods[best];
}
#endif
