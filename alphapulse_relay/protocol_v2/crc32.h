/* CRC-32 (IEEE 802.3, reflected, as zlib's) of a Protocol V2 message, without its checksum field.
 *
 * With carry-less multiplication (PCLMULQDQ) where the CPU has it, by tables of eight bytes at a
 * time elsewhere; chosen at run time. The method is that of V. Gopal et al., "Fast CRC Computation
 * for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), whose constants for this
 * polynomial are used.
 *
 * Leading zeros do not change a CRC whose register is zero. So instead of handling a message's odd
 * bytes at its end, they are put first, behind zeros, and all that follows is whole blocks of 16.
 */
#ifndef ALPHAPULSE_CRC32_H
#define ALPHAPULSE_CRC32_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HEADER_SIZE 32
#define CHECKSUM_OFFSET 28 /* bytes before the checksum field, which has four */

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

/* Reduce 128 bits to the 32 of the CRC: to 96, to 64, then by Barrett's method. */
CLMUL static inline uint32_t crc32_reduce(__m128i block) {
    const __m128i mask32 = _mm_setr_epi32(~0, 0, ~0, 0);
    const __m128i by64 = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    __m128i by16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    block = _mm_xor_si128(_mm_clmulepi64_si128(block, by16, 0x10), _mm_srli_si128(block, 8));
    __m128i low = _mm_clmulepi64_si128(_mm_and_si128(block, mask32), by64, 0x00);
    block = _mm_xor_si128(_mm_srli_si128(block, 4), low);
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(block, mask32), barrett, 0x10);
    quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, mask32), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(block, quotient), 1);
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
    const __m128i by16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i by64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    size_t payload = size - HEADER_SIZE;
    if (payload < 32) return crc32_message_portable(message, size);
    long odd = payload & 15, zeros = 48 - CHECKSUM_OFFSET - odd;
    size_t blocks = (payload >> 4) - 1;
    const uint8_t *data = message + HEADER_SIZE + odd;

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
    __m128i d = crc32_load(data);

    /* Four lanes hide the latency of a multiplication. */
    for (data += 16; blocks >= 4; data += 64, blocks -= 4) {
        a = crc32_fold(a, by64, crc32_load(data));
        b = crc32_fold(b, by64, crc32_load(data + 16));
        c = crc32_fold(c, by64, crc32_load(data + 32));
        d = crc32_fold(d, by64, crc32_load(data + 48));
    }
    __m128i fold = crc32_fold(crc32_fold(crc32_fold(a, by16, b), by16, c), by16, d);
    for (; blocks; data += 16, blocks--) fold = crc32_fold(fold, by16, crc32_load(data));
    return ~crc32_reduce(fold);
}
#endif

typedef uint32_t (*crc32_message_function)(const uint8_t *message, size_t size);
static crc32_message_function crc32_message = crc32_message_portable;

/* Call once before the first checksum. */
static const char *crc32_choose(void) {
    crc32_make_tables();
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
        crc32_message = crc32_message_clmul;
        return "pclmul";
    }
#endif
    return "table";
}
#endif
