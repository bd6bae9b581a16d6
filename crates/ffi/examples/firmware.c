/*
 * Firmware with a transport of its own. It gets an artifact from somewhere in pieces (here: standard input, any
 * field bus would do), feeds it to the library, asks its user before anything that boots is changed, and commits in
 * the new software after a health check of its own.
 *
 *     firmware DIRECTORY update < release-2.mender
 *     ... restart ...
 *     firmware DIRECTORY started HEALTHY
 *     firmware DIRECTORY status
 *     firmware DIRECTORY poll ADDRESS
 *
 * DIRECTORY is the device: slots, boot environment, state. A real one has the library's usual places and sets less.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rust_ota.h>

struct firmware {
    rota_device *device;
    const char *directory;
    int shown_phase;
    unsigned shown_percent;
    int failed; /* the first code that was not ROTA_OK */
};

/* Remembers the first failure, so that calls can stand one below the other. */
static void must(struct firmware *self, int code)
{
    if (code < 0 && self->failed == ROTA_OK) {
        char text[512] = "";
        rota_error(self->device, text, sizeof text);
        fprintf(stderr, "firmware: %s: %s\n", rota_code_text(code), text);
        self->failed = code;
    }
}

static void set_path(struct firmware *self, const char *key, const char *name)
{
    char path[512];
    if (strlen(self->directory) + strlen(name) + 2 > sizeof path) {
        self->failed = ROTA_E_ARGUMENT;
        return;
    }
    sprintf(path, "%s/%s", self->directory, name);
    must(self, rota_set(self->device, key, path));
}

/* The next piece from the transport. */
static ptrdiff_t receive(void *user, void *buffer, size_t size)
{
    size_t count = fread(buffer, 1, size < 4000 ? size : 4000, (FILE *)user);
    return count == 0 && ferror((FILE *)user) ? -1 : (ptrdiff_t)count;
}

static int on_progress(void *user, const rota_progress *progress)
{
    struct firmware *self = user;
    unsigned percent = (unsigned)(progress->done_bytes * 100 / (progress->total_bytes ? progress->total_bytes : 1));
    if (progress->phase == self->shown_phase && percent < self->shown_percent + 25 && percent < 100) return 0;
    printf("%s %u %%\n", progress->phase == ROTA_WRITING ? "writing" : "reading back", percent);
    self->shown_phase = progress->phase;
    self->shown_percent = percent;
    return 0;
}

/* The user of the machine has the last word: here a file that is there or not. */
static int on_gate(void *user, const rota_gate *gate)
{
    struct firmware *self = user;
    char path[512];
    FILE *busy;
    printf("may I go on before step %d of %s?\n", gate->gate, gate->artifact_name);
    sprintf(path, "%.500s/busy", self->directory);
    busy = fopen(path, "r");
    if (busy == NULL) return 0;
    fclose(busy);
    return -1;
}

static void on_log(void *user, int level, const char *message)
{
    (void)user;
    if (level <= ROTA_LOG_WARNING) fprintf(stderr, "log %d: %s\n", level, message);
}

static void configure(struct firmware *self, const char *server)
{
    set_path(self, "path.config", "conf/mender.conf");
    set_path(self, "path.datastore", "data");
    set_path(self, "path.data-dir", "share");
    if (server != NULL) must(self, rota_set(self->device, "ServerURL", server));
    must(self, rota_on_progress(self->device, on_progress, self));
    must(self, rota_on_gate(self->device, on_gate, self));
    must(self, rota_on_log(self->device, ROTA_LOG_INFO, on_log, self));
    must(self, rota_open(self->device));
}

static void print_status(struct firmware *self)
{
    rota_state state;
    char name[128] = "?";
    state.size = sizeof state;
    must(self, rota_look(self->device, &state));
    must(self, rota_get(self->device, "artifact_name", name, sizeof name));
    if (self->failed == ROTA_OK) {
        printf("standing %d, slot %c runs, slot %c is next, %s is installed\n", state.standing, state.running_slot,
               state.next_slot, name);
    }
}

static void update(struct firmware *self)
{
    rota_result result;
    result.size = sizeof result;
    must(self, rota_install_read(self->device, receive, stdin, &result));
    if (self->failed == ROTA_OK && result.needs_restart) printf("restart now\n");
}

/* At every start of the firmware. */
static void started(struct firmware *self, int healthy)
{
    rota_state state;
    rota_result result;
    state.size = sizeof state;
    result.size = sizeof result;
    must(self, rota_look(self->device, &state));
    if (self->failed != ROTA_OK) return;
    if (state.standing == ROTA_ON_TRIAL && healthy) {
        must(self, rota_commit(self->device, &result));
    } else if (state.standing == ROTA_ON_TRIAL) {
        must(self, rota_roll_back(self->device, 0, &result));
    } else if (state.standing != ROTA_IDLE) {
        must(self, rota_resume(self->device, &result));
    } else {
        return;
    }
    printf("outcome %d%s\n", result.outcome, result.needs_restart ? ", restart now" : "");
}

/* One round with the server; the firmware has the loop. */
static void poll_server(struct firmware *self)
{
    rota_round round;
    round.size = sizeof round;
    must(self, rota_poll(self->device, &round));
    printf("next in %lu s, ended %d, waits before %d, restarting %d\n", (unsigned long)round.next_seconds, round.ended,
           round.waits_before, round.restarting);
}

int main(int argc, char **argv)
{
    struct firmware self = {NULL, NULL, 0, 0, ROTA_OK};
    if (argc < 3) {
        fprintf(stderr, "usage: firmware DIRECTORY update|started HEALTHY|status|poll ADDRESS\n");
        return 2;
    }
    self.directory = argv[1];
    must(&self, rota_new(&self.device));
    configure(&self, strcmp(argv[2], "poll") == 0 && argc > 3 ? argv[3] : NULL);
    if (self.failed == ROTA_OK) {
        if (strcmp(argv[2], "update") == 0) update(&self);
        if (strcmp(argv[2], "started") == 0) started(&self, argc > 3 && atoi(argv[3]));
        if (strcmp(argv[2], "status") == 0) print_status(&self);
        if (strcmp(argv[2], "poll") == 0) poll_server(&self);
    }
    rota_free(self.device);
    return self.failed == ROTA_OK ? 0 : 1;
}
