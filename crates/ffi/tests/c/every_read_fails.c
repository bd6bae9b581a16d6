/*
 * every_read_fails DIRECTORY ARTIFACT: installs again and again, with a read callback that fails at its first call, its
 * second, and so on, in each way in which it can, until one installation needs no more calls than that. Nothing is armed by any
 * but the last.
 */
#include "check.h"

enum way { SAYS_SO, CLAIMS_TOO_MUCH, ENDS_EARLY, GIVES_NONSENSE, WAYS };

struct source {
    FILE *file;
    long calls;
    long fails_at;
    enum way way;
};

static ptrdiff_t next_piece(void *user, void *buffer, size_t size)
{
    struct source *source = user;
    size_t wanted = size < 16000 ? size : 16000;
    if (source->calls++ == source->fails_at) {
        switch (source->way) {
        case SAYS_SO: return -7;
        case CLAIMS_TOO_MUCH: return (ptrdiff_t)size + 1;
        case ENDS_EARLY: return 0;
        default: memset(buffer, 'x', wanted); return (ptrdiff_t)wanted;
        }
    }
    return (ptrdiff_t)fread(buffer, 1, wanted, source->file);
}

int main(int argc, char **argv)
{
    long installed_after = -1;
    int way;
    CHECK(argc == 3);
    for (way = 0; way < WAYS; way++) {
        long at;
        for (at = 0;; at++) {
            rota_device *device = open_device(argv[1]);
            struct source source = {NULL, 0, 0, SAYS_SO};
            rota_result result;
            int code;
            source.file = fopen(argv[2], "rb");
            CHECK(source.file != NULL);
            source.fails_at = at;
            source.way = (enum way)way;
            result.size = sizeof result;
            code = rota_install_read(device, next_piece, &source, &result);
            fclose(source.file);
            if (code == ROTA_OK) {
                CHECK(way != SAYS_SO || source.calls <= at);
                CHECK(result.outcome == ROTA_INSTALLED && result.needs_restart);
                EXPECT(device, ROTA_OK, rota_roll_back(device, 0, NULL));
                rota_free(device);
                installed_after = at;
                break;
            }
            CHECK(result.outcome == ROTA_NOT_MODIFIED && !result.needs_restart);
            if (way == SAYS_SO || way == CLAIMS_TOO_MUCH) {
                CHECK(code == ROTA_E_SOURCE);
            } else {
                CHECK(code == ROTA_E_ARTIFACT);
            }
            expect_untouched(device);
            rota_free(device);
        }
    }
    printf("%ld calls\n", installed_after);
    return 0;
}
