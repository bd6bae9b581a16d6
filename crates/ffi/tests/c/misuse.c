/*
 * misuse DIRECTORY ARTIFACT: every call with what it must not be given, out of order, from callbacks and from two threads.
 * Each gets its code, and nothing is armed.
 */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>
#include "check.h"

static char directory[512];
static char artifact[512];

static void null_pointers(rota_device *device)
{
    rota_result result;
    rota_state state;
    char buffer[8];
    result.size = sizeof result;
    state.size = sizeof state;
    CHECK(rota_new(NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_free(NULL) == ROTA_OK);
    CHECK(rota_set(NULL, "a", "b") == ROTA_E_ARGUMENT && rota_open(NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_error(NULL, buffer, sizeof buffer) == ROTA_E_ARGUMENT);
    CHECK(rota_on_progress(NULL, NULL, NULL) == ROTA_E_ARGUMENT && rota_on_gate(NULL, NULL, NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_on_log(NULL, 1, NULL, NULL) == ROTA_E_ARGUMENT && rota_stop(NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_install_path(NULL, "x", &result) == ROTA_E_ARGUMENT && rota_install_url(NULL, "x", NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_install_fd(NULL, 0, &result) == ROTA_E_ARGUMENT && rota_install_read(NULL, NULL, NULL, NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_commit(NULL, NULL) == ROTA_E_ARGUMENT && rota_roll_back(NULL, 0, NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_resume(NULL, NULL) == ROTA_E_ARGUMENT && rota_look(NULL, &state) == ROTA_E_ARGUMENT);
    CHECK(rota_get(NULL, "a", NULL, 0) == ROTA_E_ARGUMENT && rota_provides(NULL, NULL, NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_poll(NULL, NULL) == ROTA_E_ARGUMENT && rota_run(NULL) == ROTA_E_ARGUMENT);
    CHECK(rota_daemon_status(NULL, NULL, 0) == ROTA_E_ARGUMENT);
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_path(device, NULL, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_url(device, NULL, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_url(device, "ftp://x/y", &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_url(device, "http://\xff/", &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_read(device, NULL, NULL, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_fd(device, -1, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_fd(device, 999, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_get(device, NULL, NULL, 0));
    EXPECT(device, ROTA_E_ARGUMENT, rota_provides(device, NULL, NULL));
    EXPECT(device, ROTA_E_ARGUMENT, rota_roll_back(device, 6, &result));
    EXPECT(device, ROTA_OK, rota_look(device, NULL));
    EXPECT(device, ROTA_E_SOURCE, rota_install_path(device, "/nonexistent", &result));
    CHECK(result.outcome == ROTA_NOT_MODIFIED);
    EXPECT(device, ROTA_E_SOURCE, rota_install_path(device, "/", NULL));
    CHECK(rota_error(device, NULL, 0) > 0 && rota_error(device, buffer, sizeof buffer) > 7 && strlen(buffer) == 7);
    CHECK(strcmp(rota_code_text(12345), "unknown code") == 0 && strlen(rota_version()) > 0);
}

static void sizes(rota_device *device)
{
    rota_result result;
    rota_state state;
    rota_round round;
    result.size = 0;
    state.size = 3;
    round.size = (size_t)-1;
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_path(device, artifact, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_commit(device, &result));
    EXPECT(device, ROTA_E_ARGUMENT, rota_look(device, &state));
    EXPECT(device, ROTA_E_ARGUMENT, rota_poll(device, &round));
}

static void order(void)
{
    rota_device *device = NULL;
    EXPECT(NULL, ROTA_OK, rota_new(&device));
    EXPECT(device, ROTA_E_ORDER, rota_install_path(device, artifact, NULL));
    EXPECT(device, ROTA_E_ORDER, rota_look(device, NULL));
    EXPECT(device, ROTA_E_ORDER, rota_commit(device, NULL));
    EXPECT(device, ROTA_E_ORDER, rota_poll(device, NULL));
    EXPECT(device, ROTA_E_ORDER, rota_daemon_status(device, NULL, 0));
    EXPECT(device, ROTA_E_CONFIG, rota_set(device, "RootfsPartC", "x"));
    EXPECT(device, ROTA_E_CONFIG, rota_set(device, "RustOta.Bootloader", "lilo"));
    EXPECT(device, ROTA_E_CONFIG, rota_set(device, "SkipVerify", "perhaps"));
    EXPECT(device, ROTA_E_ARGUMENT, rota_set(device, "threads", "some"));
    EXPECT(device, ROTA_E_ARGUMENT, rota_set(device, NULL, "x"));
    EXPECT(device, ROTA_E_ARGUMENT, rota_set(device, "RootfsPartA", NULL));
    EXPECT(device, ROTA_OK, rota_set(device, "SkipVerify", "true"));
    EXPECT(device, ROTA_OK, rota_set(device, "artifactverifykeys", "[\"/nonexistent\"]"));
    EXPECT(device, ROTA_OK, rota_set(device, "path.config", "/nonexistent"));
    EXPECT(device, ROTA_E_DEVICE, rota_open(device));
    set_path(device, "path.config", directory, "conf/mender.conf");
    set_path(device, "path.datastore", directory, "data");
    /* Together with the key of the file there is one too many. */
    EXPECT(device, ROTA_E_CONFIG, rota_open(device));
    rota_free(device);
    device = open_device(directory);
    EXPECT(device, ROTA_E_ORDER, rota_open(device));
    EXPECT(device, ROTA_E_ORDER, rota_set(device, "SkipVerify", "true"));
    EXPECT(device, ROTA_E_NOTHING, rota_commit(device, NULL));
    EXPECT(device, ROTA_E_NOTHING, rota_resume(device, NULL));
    EXPECT(device, ROTA_E_NOTHING, rota_roll_back(device, 0, NULL));
    EXPECT(device, ROTA_E_NO_DAEMON, rota_daemon_status(device, NULL, 0));
    EXPECT(device, ROTA_E_NO_VALUE, rota_get(device, "no such key", NULL, 0));
    CHECK(rota_get(device, "device_type", NULL, 0) > 0);
    rota_free(device);
}

/* What did not begin has no outcome, and a text is cut between two characters. */
static void results_and_texts(rota_device *device)
{
    rota_result result;
    rota_round round;
    char text[1024];
    size_t size;
    result.size = sizeof result;
    round.size = sizeof round;
    result.outcome = ROTA_COMMITTED;
    EXPECT(device, ROTA_E_ARGUMENT, rota_install_fd(device, -1, &result));
    CHECK(result.outcome == 0);
    result.outcome = ROTA_COMMITTED;
    EXPECT(device, ROTA_OK, rota_stop(device));
    EXPECT(device, ROTA_E_STOPPED, rota_commit(device, &result));
    CHECK(result.outcome == 0);
    round.ended = ROTA_SUCCEEDED;
    EXPECT(device, ROTA_OK, rota_stop(device));
    EXPECT(device, ROTA_E_STOPPED, rota_poll(device, &round));
    CHECK(round.ended == ROTA_NONE_ENDED);
    EXPECT(device, ROTA_E_SOURCE, rota_install_path(device, "/\xc3\xa9\xc3\xa9\xc3\xa9", NULL));
    for (size = 1; size < sizeof text; size++) {
        size_t length, at, continued = 0;
        rota_error(device, text, size);
        length = strlen(text);
        for (at = 0; at < length; at++) {
            if ((text[at] & 0xe0) == 0xc0) continued++;
            if ((text[at] & 0xc0) == 0x80) continued--;
        }
        CHECK(length + 2 >= size || size > (size_t)rota_error(device, NULL, 0));
        CHECK(continued == 0);
    }
}

static int threads_of_this_process(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;
    CHECK(tasks != NULL);
    while (readdir(tasks) != NULL) count++;
    closedir(tasks);
    return count - 2;
}

struct inside {
    rota_device *device;
    int at_first_most_threads;
    int calls;
    int returns;
};

static int call_back_in(void *user, const rota_progress *progress)
{
    struct inside *self = user;
    int threads = threads_of_this_process();
    CHECK(progress->size == sizeof *progress && progress->done_bytes <= progress->total_bytes);
    if (threads > self->at_first_most_threads) self->at_first_most_threads = threads;
    CHECK(rota_look(self->device, NULL) == ROTA_E_BUSY);
    CHECK(rota_install_path(self->device, artifact, NULL) == ROTA_E_BUSY);
    CHECK(rota_commit(self->device, NULL) == ROTA_E_BUSY);
    CHECK(rota_free(self->device) == ROTA_E_BUSY);
    self->calls++;
    return self->returns;
}

static int give_up_reading_back(void *user, const rota_progress *progress)
{
    (void)user;
    return progress->phase == ROTA_READING_BACK;
}

static int refuse(void *user, const rota_gate *gate)
{
    CHECK(gate->deployment_id == NULL && strcmp(gate->artifact_name, "release-2") == 0);
    return *(int *)user;
}

/* What was installed for good reason is given up again. */
static void back(rota_device *device)
{
    EXPECT(device, ROTA_OK, rota_roll_back(device, 0, NULL));
    expect_untouched(device);
}

static void callbacks(rota_device *device)
{
    struct inside inside = {NULL, 0, 0, 0};
    rota_result result;
    int answer;
    inside.device = device;
    result.size = sizeof result;
    EXPECT(device, ROTA_E_ARGUMENT, rota_on_log(device, 9, (rota_log_fn)abort, NULL));
    EXPECT(device, ROTA_OK, rota_on_progress(device, call_back_in, &inside));
    EXPECT(device, ROTA_OK, rota_install_path(device, artifact, &result));
    CHECK(inside.calls > 0 && inside.at_first_most_threads == threads_of_this_process());
    back(device);
    inside.returns = 1;
    inside.calls = 0;
    EXPECT(device, ROTA_E_STOPPED, rota_install_path(device, artifact, &result));
    CHECK(inside.calls == 1 && result.outcome == ROTA_NOT_MODIFIED);
    expect_untouched(device);
    /* Behind the last byte of the artifact as well. */
    EXPECT(device, ROTA_OK, rota_on_progress(device, give_up_reading_back, NULL));
    EXPECT(device, ROTA_E_STOPPED, rota_install_path(device, artifact, &result));
    expect_untouched(device);
    EXPECT(device, ROTA_OK, rota_on_progress(device, NULL, NULL));
    for (answer = -1; answer <= 60; answer += 61) {
        EXPECT(device, ROTA_OK, rota_on_gate(device, refuse, &answer));
        EXPECT(device, ROTA_E_REFUSED, rota_install_path(device, artifact, &result));
        CHECK(result.outcome == ROTA_NOT_MODIFIED || result.outcome == ROTA_ROLLED_BACK);
        expect_untouched(device);
    }
    EXPECT(device, ROTA_OK, rota_on_gate(device, NULL, NULL));
    EXPECT(device, ROTA_OK, rota_stop(device));
    EXPECT(device, ROTA_E_STOPPED, rota_install_path(device, artifact, &result));
    expect_untouched(device);
}

struct blocked {
    rota_device *device;
    sem_t reached;
    sem_t released;
    int stopped;
};

/* Waits in the middle of the artifact until the other thread has tried. */
static ptrdiff_t hold(void *user, void *buffer, size_t size)
{
    struct blocked *self = user;
    (void)buffer;
    (void)size;
    sem_post(&self->reached);
    while (sem_wait(&self->released) != 0) {
    }
    return -1;
}

static void *install(void *user)
{
    struct blocked *self = user;
    rota_result result;
    result.size = sizeof result;
    self->stopped = rota_install_read(self->device, hold, self, &result);
    CHECK(result.outcome == ROTA_NOT_MODIFIED);
    return NULL;
}

static void two_threads(rota_device *device)
{
    struct blocked blocked;
    rota_device *other = open_device(directory);
    pthread_t thread;
    char text[8];
    blocked.device = device;
    sem_init(&blocked.reached, 0, 0);
    sem_init(&blocked.released, 0, 0);
    CHECK(pthread_create(&thread, NULL, install, &blocked) == 0);
    while (sem_wait(&blocked.reached) != 0) {
    }
    CHECK(rota_look(device, NULL) == ROTA_E_BUSY && rota_free(device) == ROTA_E_BUSY);
    CHECK(rota_install_path(device, artifact, NULL) == ROTA_E_BUSY);
    CHECK(rota_error(device, text, sizeof text) >= 0);
    /* Another handle may look, and not work. */
    EXPECT(other, ROTA_OK, rota_look(other, NULL));
    EXPECT(other, ROTA_E_LOCKED, rota_install_path(other, artifact, NULL));
    sem_post(&blocked.released);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(blocked.stopped == ROTA_E_SOURCE);
    sem_destroy(&blocked.reached);
    sem_destroy(&blocked.released);
    rota_free(other);
    expect_untouched(device);
}

struct feeder {
    FILE *from;
    volatile int returned;
    volatile int late;
};

/* A slow transport, in pieces as large as they come. */
static ptrdiff_t feed(void *user, void *buffer, size_t size)
{
    struct feeder *self = user;
    self->late += self->returned;
    usleep(2000);
    self->late += self->returned;
    return (ptrdiff_t)fread(buffer, 1, size, self->from);
}

/* The artifact is for other devices, which is seen in its first bytes: nobody reads on for nobody. */
static void read_ahead(void)
{
    struct feeder feeder = {NULL, 0, 0};
    rota_device *device = NULL;
    char name[1024];
    EXPECT(NULL, ROTA_OK, rota_new(&device));
    set_path(device, "path.config", directory, "conf/mender.conf");
    set_path(device, "path.datastore", directory, "elsewhere");
    set_path(device, "path.data-dir", directory, "share");
    EXPECT(device, ROTA_OK, rota_set(device, "threads", "yes"));
    sprintf(name, "%.500s/other_type", directory);
    feeder.from = fopen(name, "w");
    CHECK(feeder.from != NULL);
    fputs("device_type=another\n", feeder.from);
    fclose(feeder.from);
    EXPECT(device, ROTA_OK, rota_set(device, "DeviceTypeFile", name));
    EXPECT(device, ROTA_OK, rota_open(device));
    feeder.from = fopen(artifact, "rb");
    CHECK(feeder.from != NULL);
    EXPECT(device, ROTA_E_DEPENDS, rota_install_read(device, feed, &feeder, NULL));
    feeder.returned = 1;
    usleep(100000);
    CHECK(feeder.late == 0);
    fclose(feeder.from);
    rota_free(device);
}

static void *run(void *user)
{
    struct blocked *self = user;
    self->stopped = rota_run(self->device);
    sem_post(&self->released);
    return NULL;
}

/* The daemon's loop in a thread of the program; another handle asks it what it does. */
static void loop(rota_device *device)
{
    struct blocked blocked;
    rota_device *other = open_device(directory);
    pthread_t thread;
    char text[2048] = "";
    blocked.device = device;
    sem_init(&blocked.released, 0, 0);
    CHECK(pthread_create(&thread, NULL, run, &blocked) == 0);
    while (rota_daemon_status(other, text, sizeof text) < 0 && sem_trywait(&blocked.released) != 0) {
        usleep(10000);
    }
    CHECK(strstr(text, "\"stage\"") != NULL);
    EXPECT(other, ROTA_E_LOCKED, rota_poll(other, NULL));
    EXPECT(device, ROTA_OK, rota_stop(device));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(blocked.stopped == ROTA_E_STOPPED);
    EXPECT(other, ROTA_E_NO_DAEMON, rota_daemon_status(other, text, sizeof text));
    sem_destroy(&blocked.released);
    rota_free(other);
}

int main(int argc, char **argv)
{
    rota_device *device;
    CHECK(argc == 3);
    sprintf(directory, "%.500s", argv[1]);
    sprintf(artifact, "%.500s", argv[2]);
    device = open_device(directory);
    null_pointers(device);
    sizes(device);
    order();
    results_and_texts(device);
    callbacks(device);
    read_ahead();
    two_threads(device);
    loop(device);
    expect_untouched(device);
    EXPECT(device, ROTA_OK, rota_free(device));
    puts("every misuse was refused");
    return 0;
}
