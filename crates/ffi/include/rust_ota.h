/*
 * rust_ota.h: the C interface of the update client rust-ota. Made by cbindgen from crates/ffi; docs/c-api.md is the guide.
 *
 * Every function returns 0 or more when it was done and a code below zero (ROTA_E_...) when it was not; rota_error() has the
 * text. Codes and other numbers keep their meaning for ever; structures grow at their end and begin with their size.
 *
 * A handle takes one call at a time; another thread gets ROTA_E_BUSY, and so does a callback that calls back. Texts are UTF-8
 * and end with a zero byte, those that are passed in stay the caller's. The library starts no threads but where a function says
 * so, handles no signals, and changes nothing of the process.
 */

#ifndef RUST_OTA_H
#define RUST_OTA_H

#include <stddef.h>
#include <stdint.h>

/* It was done. */
#define ROTA_OK 0

/* An argument is wrong: a null pointer, a structure of another size, a text that is not UTF-8. */
#define ROTA_E_ARGUMENT (-1)

/* The call does not come in this order: before rota_open(), or after it. */
#define ROTA_E_ORDER (-2)

/* Another thread is in a call with this handle, or a callback called back into it. */
#define ROTA_E_BUSY (-3)

/* Another process works on the device. */
#define ROTA_E_LOCKED (-4)

/* The configuration, or a key that it names, cannot be used. */
#define ROTA_E_CONFIG (-5)

/* The program wanted to stop: by a callback, or by rota_stop(). */
#define ROTA_E_STOPPED (-6)

/* The artifact could not be read: the file, the network, the read callback. */
#define ROTA_E_SOURCE (-7)

/* The artifact is refused: its signature, its format, its checksums, its limits. */
#define ROTA_E_ARTIFACT (-8)

/* The artifact is good and not for this device, or not for what is installed on it. */
#define ROTA_E_DEPENDS (-9)

/* Slots, boot environment, record or operating system: the device itself. */
#define ROTA_E_DEVICE (-10)

/* A gate said no: the gate callback, a health check, a window. */
#define ROTA_E_REFUSED (-11)

/* There is no update in progress. */
#define ROTA_E_NOTHING (-12)

/* Another update has to be committed or rolled back first, or this one cannot be here and now. */
#define ROTA_E_IN_PROGRESS (-13)

/* The server cannot be reached, refuses the device, or says what is no answer. */
#define ROTA_E_SERVER (-14)

/* No daemon answers. */
#define ROTA_E_NO_DAEMON (-15)

/* The update failed: a script, a module, the bootloader that went back. */
#define ROTA_E_FAILED (-16)

/* There is no such value. */
#define ROTA_E_NO_VALUE (-17)

/* A fault of this library. The handle takes no further call but rota_free(). */
#define ROTA_E_FAULT (-18)

/* Progress: the payload is being verified and written. */
#define ROTA_WRITING 1

/* Progress: what was written is being read back. */
#define ROTA_READING_BACK 2

/* Gate: before the first byte of an artifact is asked for; of updates that a server ordered. */
#define ROTA_GATE_DOWNLOAD 1

/* Gate: before anything that boots is changed. */
#define ROTA_GATE_INSTALL 2

/* Gate: before the restart into the new software; of updates that a server ordered. */
#define ROTA_GATE_RESTART 3

/* Gate: before the new software becomes permanent. */
#define ROTA_GATE_COMMIT 4

/* A log line about what went wrong. */
#define ROTA_LOG_ERROR 1

/* A log line about what is odd. */
#define ROTA_LOG_WARNING 2

/* A log line about what happens. */
#define ROTA_LOG_INFO 3

/* A log line for whoever looks for a fault. */
#define ROTA_LOG_DEBUG 4

/* Result: the device is as before. */
#define ROTA_NOT_MODIFIED 1

/* Result: installed; it waits for the restart, or for rota_commit() where no restart is needed. */
#define ROTA_INSTALLED 2

/* Result: installed for good. */
#define ROTA_COMMITTED 3

/* Result: the old software is back, or will be after the restart. */
#define ROTA_ROLLED_BACK 4

/* Result: neither the old nor the new software can be vouched for. */
#define ROTA_INCONSISTENT 5

/* Result: stopped on request; rota_resume() goes on with what was verified by then, and what was not is begun anew. */
#define ROTA_INTERRUPTED 6

/* Result: what an update left behind is removed; the device runs what it ran, and nothing is in progress. */
#define ROTA_CLEANED_UP 7

/* Standing: no update is in progress. */
#define ROTA_IDLE 0

/* Standing: an update is being taken in or wound up, or was interrupted at that: rota_resume(). */
#define ROTA_WORKING 1

/* Standing: installed and armed; restart the device. */
#define ROTA_AWAITS_RESTART 2

/* Standing: the new software runs on trial: rota_commit(), or the next restart goes back. */
#define ROTA_ON_TRIAL 3

/* Standing: installed without a restart; waits for rota_commit() or rota_roll_back(). */
#define ROTA_AWAITS_COMMIT 4

/* Standing: the bootloader went back to the old software; rota_resume() winds the update up. */
#define ROTA_FELL_BACK 5

/* Standing: the update failed or was given up; the old software runs, or will after the restart. */
#define ROTA_GOING_BACK 6

/* Standing: what boots and what is recorded contradict each other; the boot environment wants a look. */
#define ROTA_CONTRADICTORY 7

/* Standing: an update is in progress, and what boots cannot be learned. */
#define ROTA_UNKNOWN 8

/* Flag of rota_roll_back(): after a commit, try what the other slot holds. */
#define ROTA_TO_OTHER_SLOT 1

/* What rota_poll() says of a deployment that came to its end: none did. */
#define ROTA_NONE_ENDED 0

/* What rota_poll() says of a deployment that came to its end: it is installed for good. */
#define ROTA_SUCCEEDED 1

/* What rota_poll() says of a deployment that came to its end: it failed, and the server knows or will be told. */
#define ROTA_FAILED 2

/* A device: the handle of every call. */
typedef struct rota_device rota_device;

/* How far an installation is. */
typedef struct rota_progress {
  /* Bytes of this structure, set by the library. */
  size_t size;
  /* ROTA_WRITING or ROTA_READING_BACK. */
  int phase;
  /* Bytes of the payload so far. */
  uint64_t done_bytes;
  /* Bytes of the payload in all. */
  uint64_t total_bytes;
} rota_progress;

/*
 Called with the progress of an installation, in the thread of the call. Return 0 to go on; anything else gives the
 installation up: it ends with ROTA_E_STOPPED, and nothing was armed.
 */
typedef int (*rota_progress_fn)(void *user, const struct rota_progress *progress);

/* A question to the program: may the update go on? */
typedef struct rota_gate {
  /* Bytes of this structure, set by the library. */
  size_t size;
  /* Before what: ROTA_GATE_... */
  int gate;
  /* What is to be installed; UTF-8, valid during the call. */
  const char *artifact_name;
  /* The deployment of the server; UTF-8, valid during the call. NULL for an installation of the program's own. */
  const char *deployment_id;
} rota_gate;

/*
 Asked before each gate, in the thread of the call. Return 0 to go on; a negative number to refuse: the update fails, and
 what was done is undone; a positive number to be asked again in so many seconds (deployments of a server; an
 installation of the program's own has nobody to wait and is refused).
 */
typedef int (*rota_gate_fn)(void *user, const struct rota_gate *gate);

/*
 Called with one line of the log, in the thread of the call: level ROTA_LOG_..., UTF-8 without a line end, valid during
 the call.
 */
typedef void (*rota_log_fn)(void *user, int level, const char *message);

/* How a call left the device. */
typedef struct rota_result {
  /* Bytes of this structure, set by the caller: sizeof(rota_result). */
  size_t size;
  /* ROTA_NOT_MODIFIED to ROTA_CLEANED_UP; 0 where the call could not be begun. */
  int outcome;
  /* 1 when the device must be restarted for the change to take effect. */
  int needs_restart;
} rota_result;

/*
 Gives the next bytes of an artifact, in the thread of the call: writes at most `size` bytes to `buffer` and returns how
 many, 0 at the end of the artifact, a negative number when reading failed (which rota_error() repeats). May block.
 */
typedef ptrdiff_t (*rota_read_fn)(void *user, void *buffer, size_t size);

/* How the device stands. */
typedef struct rota_state {
  /* Bytes of this structure, set by the caller: sizeof(rota_state). */
  size_t size;
  /* ROTA_IDLE to ROTA_UNKNOWN. */
  int standing;
  /* The slot that runs: 'A' or 'B'; 0 where that cannot be told or there are none. */
  int running_slot;
  /* The slot that boots next: 'A' or 'B'; 0 where that cannot be told or there are none. */
  int next_slot;
  /* 1 when the record of what is installed was lost; rota_error() says why. */
  int record_lost;
} rota_state;

/*
 Called with one pair that an installed artifact provides, in the thread of the call; UTF-8, valid during the call.
 Return 0 to be given the next one.
 */
typedef int (*rota_pair_fn)(void *user, const char *key, const char *value);

/* What came of one round with the server. */
typedef struct rota_round {
  /* Bytes of this structure, set by the caller: sizeof(rota_round). */
  size_t size;
  /* Seconds for which there is nothing to do. Call again then, or earlier for an earlier question. */
  uint32_t next_seconds;
  /* ROTA_NONE_ENDED, ROTA_SUCCEEDED or ROTA_FAILED. */
  int ended;
  /* The gate (ROTA_GATE_...) before which a deployment waits; 0 when none does. rota_error() says why it waits. */
  int waits_before;
  /* 1 when the restart of the device was ordered: it is about to go down. */
  int restarting;
} rota_round;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/*
 The version of the library, as `1.2.3`. Never NULL, never freed.

 Any thread, at any time.
 */
const char *rota_version(void);

/*
 What a code means, in English. Never NULL, never freed, also for numbers that are no code.

 Any thread, at any time.
 */
const char *rota_code_text(int code);

/*
 Makes a handle and gives it to *device; rota_free() takes it back. Nothing is opened or read yet.

 Any thread, at any time. Two handles know nothing of each other; that only one of them works on a device at a time, the
 lock of the device sees to, as between processes.

 Returns ROTA_OK, or ROTA_E_ARGUMENT when device is NULL.
 */
int rota_new(struct rota_device **device);

/*
 Takes a handle back: closes what it has open, and frees it. NULL is fine.

 No other call with the handle may come after it or at the same time. Returns ROTA_OK, or ROTA_E_BUSY, and frees nothing,
 while a call is in progress (from a callback, for example).
 */
int rota_free(struct rota_device *device);

/*
 Sets a value, before rota_open(). Values win over those of configuration files.

 key is a key of mender.conf (docs/configuration.md), in any letter case, keys inside of an object with a point:
 "RootfsPartA", "RustOta.Bootloader". value is the text itself where the key takes text, and JSON where it takes
 something else: "true", "1800", a list of strings. A key that there is not and a value of the wrong kind are refused
 at once.

 Or key is one of these, and value a path:
 "path.config" is the configuration file, which must be there then (otherwise /etc/mender/mender.conf where it is there),
 "path.fallback-config" the one under it (mender.conf in the datastore), "path.datastore" the directory of the state
 (/var/lib/mender), "path.conf-dir" the directory of the configuration (/etc/mender), "path.data-dir" that of update modules
 and inventory programs (/usr/share/mender).

 "threads" is "no" (the default: nothing of an installation runs in a thread of the library) or "yes": threads read and
 decode ahead, which is faster; then a read callback is called in another thread than that of the call.

 One thread at a time. Returns ROTA_OK, ROTA_E_ARGUMENT, ROTA_E_ORDER after rota_open(), ROTA_E_CONFIG.
 */
int rota_set(struct rota_device *device,
             const char *key,
             const char *value);

/*
 Reads the configuration. Takes no lock, and opens nothing of the device. After it, values cannot be set any more; when it
 fails they can, and it may be called again.

 One thread at a time. Returns ROTA_OK, ROTA_E_ORDER when the handle is open already, ROTA_E_CONFIG, ROTA_E_DEVICE.
 */
int rota_open(struct rota_device *device);

/*
 Writes why the last call with this handle failed to buffer, with a zero byte at its end, cut to size bytes between two
 characters. Returns how many bytes it has without that zero byte; 0 when none failed yet. UTF-8.

 Any thread, at any time. Of ROTA_E_BUSY there is no text: the text is that of the call in progress.
 */
int rota_error(const struct rota_device *device,
               char *buffer,
               size_t size);

/*
 Has callback told how installations go; NULL ends that. user is handed back to it.

 Any thread, at any time; a call in progress takes it up. The program keeps what user points to until the callback is
 replaced, or the handle freed.
 */
int rota_on_progress(struct rota_device *device,
                     rota_progress_fn callback,
                     void *user);

/*
 Has callback asked before each gate; NULL ends that. user is handed back to it. What the configuration asks (health check,
 maintenance window, questions) is asked after it.

 Threads and memory as rota_on_progress().
 */
int rota_on_gate(struct rota_device *device,
                 rota_gate_fn callback,
                 void *user);

/*
 Has callback called with the lines of the log up to level (ROTA_LOG_...); NULL ends that. user is handed back to it. The
 library writes to no log by itself, but the log of each deployment of a server.

 Threads and memory as rota_on_progress(). Returns ROTA_OK, or ROTA_E_ARGUMENT for a level that there is not.
 */
int rota_on_log(struct rota_device *device,
                int level,
                rota_log_fn callback,
                void *user);

/*
 Ends the call in progress, or the next one where there is none: at the next step that may be interrupted, as a daemon is
 ended by its service manager. An update that was begun is gone on with by rota_resume(), rota_poll() or rota_run(). A
 callback of the program that does not return is not ended. The call that is ended returns ROTA_E_STOPPED, whichever it is.

 Any thread, at any time; not in a signal handler. Returns ROTA_OK, or ROTA_E_ARGUMENT when device is NULL.
 */
int rota_stop(struct rota_device *device);

/*
 Installs the artifact in the file path.

 Verifies it, writes it to the slot that does not run (or has its payload's handler do what that does), reads it back and
 arms the bootloader for one trial. Then restart the device, and rota_commit() in the new software. result may be NULL.

 One thread at a time. Returns ROTA_OK or a code below zero; then nothing is armed, and result says how the device was left.
 */
int rota_install_path(struct rota_device *device,
                      const char *path,
                      struct rota_result *result);

/*
 Installs the artifact that can be read from the descriptor fd: a file, a pipe, a socket, from where it stands. The
 descriptor stays the caller's. For the rest see rota_install_path().
 */
int rota_install_fd(struct rota_device *device,
                    int fd,
                    struct rota_result *result);

/*
 Installs the artifact that read gives, in pieces, one call after the other, in the order of its bytes. user is handed back
 to it. For the rest see rota_install_path().
 */
int rota_install_read(struct rota_device *device,
                      rota_read_fn read,
                      void *user,
                      struct rota_result *result);

/*
 Downloads and installs the artifact at the address url, http:// or https://, and goes on with a transfer that broke off.
 Names are resolved in threads of their own, in which nothing of the program runs. For the rest see rota_install_path().
 */
int rota_install_url(struct rota_device *device,
                     const char *url,
                     struct rota_result *result);

/*
 Makes the running trial permanent, or what was installed without a restart. result may be NULL.

 One thread at a time. Returns ROTA_OK or a code below zero: ROTA_E_NOTHING when no update is in progress,
 ROTA_E_IN_PROGRESS before the restart, ROTA_E_FAILED when the bootloader went back.
 */
int rota_commit(struct rota_device *device, struct rota_result *result);

/*
 Gives up what is not committed: goes back to the old software, now or with the next restart. With ROTA_TO_OTHER_SLOT in
 flags, after a commit: tries what the other slot holds, if that is still what was committed there.

 For the rest see rota_commit().
 */
int rota_roll_back(struct rota_device *device,
                   uint32_t flags,
                   struct rota_result *result);

/*
 Goes on with an update that was interrupted: by a power cut, by rota_stop(), by the end of a process. What is done is decided
 by the boot environment.

 For the rest see rota_commit().
 */
int rota_resume(struct rota_device *device,
                struct rota_result *result);

/*
 Says how the device stands. Opens nothing for writing, takes no lock and waits for nobody, so that it can be asked beside a
 daemon, by every user who may read the state.

 One thread at a time. Returns ROTA_OK, ROTA_E_ARGUMENT, ROTA_E_ORDER, ROTA_E_DEVICE.
 */
int rota_look(struct rota_device *device,
              struct rota_state *state);

/*
 Writes one value to buffer, with a zero byte at its end, cut to size bytes: "device_type", or a key that the installed
 artifacts provide, such as "artifact_name" or "rootfs-image.version". Returns how many bytes it has without that zero byte,
 or ROTA_E_NO_VALUE. Looks as rota_look() does. UTF-8.
 */
int rota_get(struct rota_device *device,
             const char *key,
             char *buffer,
             size_t size);

/*
 Calls pair with each key and value that the installed artifacts provide, by name, until it returns something else than 0.
 Looks as rota_look() does.

 One thread at a time. Returns ROTA_OK, ROTA_E_STOPPED when the callback did not want all, or another code below zero.
 */
int rota_provides(struct rota_device *device,
                  rota_pair_fn pair,
                  void *user);

/*
 One round with the server, for a program that does the waiting: goes on with what an earlier round or process began, sends the
 inventory when that is due, asks for an update, carries out what the server orders, and reports it. What is ordered is
 downloaded and installed in this call; progress and gates are told and asked as in an installation of the program's own.
 Giving up in the progress callback refuses the deployment at its next gate. round may be NULL.

 The first round makes the device key where there is none, and keeps other daemons away until the handle is freed or
 rota_stop() was called. Where the new software needs a restart, the restart is ordered as the configuration says
 (RustOta.RebootCommand) and round->restarting is 1; the first round of the next process goes on.

 One thread at a time. Returns ROTA_OK when the server answered; ROTA_E_SERVER when it did not, or something else went
 wrong that another round may put right (rota_error() says what; round->next_seconds is set); ROTA_E_LOCKED when a daemon
 runs; ROTA_E_CONFIG without a server or a usable key; ROTA_E_STOPPED.
 */
int rota_poll(struct rota_device *device,
              struct rota_round *round);

/*
 The daemon: rounds with the waits between them, until rota_stop(). Serves `rust-ota status` on the status socket in a thread
 of its own, handles no signals, tells no service manager.

 One thread at a time. Returns ROTA_E_STOPPED after rota_stop(); what keeps it from beginning as rota_poll().
 */
int rota_run(struct rota_device *device);

/*
 Asks the daemon that runs on this device, in whatever process, what it is doing, and writes the answer to buffer: a JSON
 object (docs/daemon.md, "Status") with a zero byte at its end, cut to size bytes. Returns how many bytes it has without that
 zero byte, or ROTA_E_NO_DAEMON.

 One thread at a time; waits a few seconds at most.
 */
int rota_daemon_status(struct rota_device *device,
                       char *buffer,
                       size_t size);

#ifdef __cplusplus
}  /* extern "C" */
#endif  /* __cplusplus */

#endif  /* RUST_OTA_H */
