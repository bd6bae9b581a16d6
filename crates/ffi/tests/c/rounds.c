/*
 * rounds DIRECTORY hold: a deployment waits before its gate for some rounds, then it is let through.
 * rounds DIRECTORY give-up: in the daemon's loop the first deployment is given up, and the second one is installed.
 */
#include "check.h"

static int answer = 5;
static int refused;

static int on_gate(void *user, const rota_gate *gate)
{
    if (gate->gate == ROTA_GATE_RESTART && refused) rota_stop(user);
    return gate->gate == ROTA_GATE_INSTALL && !refused ? answer : 0;
}

static int on_progress(void *user, const rota_progress *progress)
{
    (void)user;
    (void)progress;
    return !refused++;
}

static void hold(rota_device *device)
{
    rota_round round;
    int times;
    round.size = sizeof round;
    for (times = 0; times < 4; times++) {
        EXPECT(device, ROTA_OK, rota_poll(device, &round));
        CHECK(round.waits_before == ROTA_GATE_INSTALL);
        CHECK(round.next_seconds > 0 && round.next_seconds <= 7);
    }
    answer = 0;
    EXPECT(device, ROTA_OK, rota_poll(device, &round));
    CHECK(round.waits_before == 0 && round.restarting == 1);
}

int main(int argc, char **argv)
{
    rota_device *device;
    CHECK(argc == 3);
    device = open_device(argv[1]);
    expect_untouched(device);
    EXPECT(device, ROTA_OK, rota_on_gate(device, on_gate, device));
    if (strcmp(argv[2], "hold") == 0) {
        hold(device);
    } else {
        EXPECT(device, ROTA_OK, rota_on_progress(device, on_progress, NULL));
        EXPECT(device, ROTA_E_STOPPED, rota_run(device));
    }
    EXPECT(device, ROTA_OK, rota_free(device));
    return 0;
}
