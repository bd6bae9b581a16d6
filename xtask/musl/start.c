/* Where a static program begins: the relocations in their short form (DT_RELR) are done before musl's own start looks at
   anything. musl knows the form since 1.2.4; Debian 12 has 1.2.3. The long form is 100 KiB more. */
#include <elf.h>
#include <link.h>

#define RELR 36
#define RELR_BYTES 35

#if defined __x86_64__
__asm__(
    ".text\n"
    ".globl rota_start\n"
    ".type rota_start, @function\n"
    "rota_start:\n"
    "    mov %rsp, %rbx\n"
    "    lea _DYNAMIC(%rip), %rdi\n"
    "    lea __ehdr_start(%rip), %rsi\n"
    "    and $-16, %rsp\n"
    "    call rota_relocate\n"
    "    mov %rbx, %rsp\n"
    "    jmp _start\n");
#else
#error "there is no start for this processor"
#endif

/* A word with bit 0 clear is the address of a word to move, and where the next ones begin; one with bit 0 set says in its
   other bits which of those that follow are to be moved. */
__attribute__((visibility("hidden"))) void rota_relocate(const ElfW(Dyn) *dynamic, unsigned char *base)
{
    const ElfW(Addr) *word = 0;
    ElfW(Addr) *next = 0;
    unsigned long bytes = 0;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == RELR)
            word = (const ElfW(Addr) *)(base + dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == RELR_BYTES)
            bytes = dynamic->d_un.d_val;
    }
    for (; word != 0 && bytes >= sizeof *word; bytes -= sizeof *word, word++) {
        ElfW(Addr) value = *word;
        if ((value & 1) == 0) {
            next = (ElfW(Addr) *)(base + value);
            *next++ += (ElfW(Addr))base;
            continue;
        }
        for (unsigned bit = 0; (value >>= 1) != 0; bit++)
            if ((value & 1) != 0)
                next[bit] += (ElfW(Addr))base;
        next += 8 * sizeof *next - 1;
    }
}
