/* What the test programs share: a check that says where it failed, and a device in a directory. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rust_ota.h>

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

/* The call gives this code, and says why. */
#define EXPECT(device, code, call)                                             \
    do {                                                                       \
        int given = (call);                                                    \
        if (given != (code)) {                                                 \
            char why[512] = "";                                                \
            rota_error(device, why, sizeof why);                               \
            fprintf(stderr, "%s:%d: %s gives %d (%s), not %d\n", __FILE__,     \
                    __LINE__, #call, given, why, (code));                      \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static void set_path(rota_device *device, const char *key, const char *directory, const char *name)
{
    char path[1024];
    sprintf(path, "%.500s/%.500s", directory, name);
    EXPECT(device, ROTA_OK, rota_set(device, key, path));
}

static rota_device *open_device(const char *directory)
{
    rota_device *device = NULL;
    EXPECT(NULL, ROTA_OK, rota_new(&device));
    set_path(device, "path.config", directory, "conf/mender.conf");
    set_path(device, "path.datastore", directory, "data");
    set_path(device, "path.data-dir", directory, "share");
    EXPECT(device, ROTA_OK, rota_open(device));
    return device;
}

/* Nothing was armed: the slot that runs boots next, and no update is in progress. */
static void expect_untouched(rota_device *device)
{
    rota_state state;
    state.size = sizeof state;
    EXPECT(device, ROTA_OK, rota_look(device, &state));
    CHECK(state.standing == ROTA_IDLE);
    CHECK(state.running_slot == 'A' && state.next_slot == 'A');
}

#endif
