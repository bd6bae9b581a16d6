/* musl compares byte by byte, which is a tenth of an installation: what is written is compared with what is there. This one
   compares four words at a time, and finds the byte in the words that differ. */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t word __attribute__((may_alias, aligned(1)));

int memcmp(const void *left, const void *right, size_t bytes)
{
    const unsigned char *l = left;
    const unsigned char *r = right;
    while (bytes >= 4 * sizeof(word)) {
        const word *a = (const word *)l;
        const word *b = (const word *)r;
        if (((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) != 0)
            break;
        l += 4 * sizeof(word);
        r += 4 * sizeof(word);
        bytes -= 4 * sizeof(word);
    }
    for (; bytes != 0; l++, r++, bytes--)
        if (*l != *r)
            return *l - *r;
    return 0;
}
