/*
 * An installer: install CONFIG STATE ARTIFACT, restart, and install CONFIG STATE to commit.
 *
 *     cc install.c -lrust_ota -o install
 *     ./install /etc/mender/mender.conf /var/lib/mender release-2.mender
 */
#include <stdio.h>
#include <rust_ota.h>

static int show(void *user, const rota_progress *progress)
{
    (void)user;
    printf("%s %lu of %lu KiB\n", progress->phase == ROTA_WRITING ? "written" : "read back",
           (unsigned long)(progress->done_bytes / 1024), (unsigned long)(progress->total_bytes / 1024));
    return 0; /* go on */
}

int main(int argc, char **argv)
{
    rota_device *device = NULL;
    rota_result result;
    char text[256] = "";
    int code;

    if (argc < 3) {
        fprintf(stderr, "usage: install CONFIG STATE [ARTIFACT]\n");
        return 1;
    }
    result.size = sizeof result;
    result.needs_restart = 0;
    code = rota_new(&device);
    if (code == ROTA_OK) code = rota_set(device, "path.config", argv[1]);
    if (code == ROTA_OK) code = rota_set(device, "path.datastore", argv[2]);
    if (code == ROTA_OK) code = rota_open(device);
    if (code == ROTA_OK) code = rota_on_progress(device, show, NULL);
    if (code == ROTA_OK) code = argc > 3 ? rota_install_path(device, argv[3], &result) : rota_commit(device, &result);
    if (code != ROTA_OK) {
        rota_error(device, text, sizeof text);
        fprintf(stderr, "%s: %s\n", rota_code_text(code), text);
    } else {
        printf("%s\n", result.needs_restart ? "installed: restart the device" : "committed");
    }
    rota_free(device);
    return code == ROTA_OK ? 0 : 1;
}
