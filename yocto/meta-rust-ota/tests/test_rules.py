"""What the rules of the layer promise: python3 -m unittest discover -s tests, in the folder of the layer."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

LAYER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(LAYER, "lib"))

import rust_ota
from rust_ota import device, layout, source, variables

# The defaults of conf/rust-ota-variables.inc for a machine "board".
VALUES = {
    "MENDER_ARTIFACT_NAME": "release-1",
    "MENDER_BOOT_PART": "/dev/mmcblk0p1",
    "MENDER_BOOT_PART_FSTAB_OPTS": "defaults,sync",
    "MENDER_BOOT_PART_MOUNT_LOCATION": "/boot/uboot",
    "MENDER_BOOT_PART_SIZE_MB": "16",
    "MENDER_DATA_PART": "/dev/mmcblk0p4",
    "MENDER_DATA_PART_FSTAB_OPTS": "defaults",
    "MENDER_DATA_PART_NUMBER": "4",
    "MENDER_DATA_PART_SIZE_MB": "128",
    "MENDER_DEVICE_TYPE": "board",
    "MENDER_DEVICE_TYPES_COMPATIBLE": "board",
    "MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET": "2",
    "MENDER_IMAGE_BOOTLOADER_FILE": "",
    "MENDER_PARTITIONING_OVERHEAD_KB": "16384",
    "MENDER_PARTITION_ALIGNMENT": "8388608",
    "MENDER_RESERVED_SPACE_BOOTLOADER_DATA": "0",
    "MENDER_ROOTFS_PART_A": "/dev/mmcblk0p2",
    "MENDER_ROOTFS_PART_A_NUMBER": "2",
    "MENDER_ROOTFS_PART_B": "/dev/mmcblk0p3",
    "MENDER_ROOTFS_PART_B_NUMBER": "3",
    "MENDER_STORAGE_TOTAL_SIZE_MB": "1024",
    "RUST_OTA_FW_ENV_CONFIG": "/boot/uboot/uboot.env 0x0 0x200",
    "RUST_OTA_IMAGE_BASE": "/deploy/image",
    "RUST_OTA_PARTITION_TABLE": "gpt",
    "RUST_OTA_ROOTFS_TYPE": "ext4",
    "RUST_OTA_UBOOT_ENV": "file",
}


class Rules(unittest.TestCase):
    """With a check for what every mistake has to do: name its variable."""

    def refused(self, variable, function, says="", **changes):
        with self.assertRaises(rust_ota.VariableError) as caught:
            function({**VALUES, **changes})
        self.assertEqual(caught.exception.variable, variable)
        self.assertTrue(str(caught.exception).startswith(variable + ": "), str(caught.exception))
        self.assertIn(says, str(caught.exception))


class Variables(Rules):
    def test_what_the_layer_knows_is_passed_in_silence(self):
        self.assertEqual(variables.warnings(variables.USED), [])
        self.assertEqual(variables.warnings(["MENDER_STORAGE_DEVICE_DEFAULT", "OTHER_VARIABLE"]), [])

    def test_a_misspelt_name_is_told_with_the_nearest_one(self):
        said = variables.warnings(["MENDER_ARTIFACT_NMAE"])
        self.assertEqual(len(said), 1)
        self.assertIn("did you mean MENDER_ARTIFACT_NAME?", said[0])

    def test_a_name_like_no_other_is_told_too(self):
        self.assertIn("no known name", variables.warnings(["MENDER_QQQQ"])[0])

    def test_what_only_meta_mender_reads_has_no_effect_and_says_what_has(self):
        for name, instead in (
            ("MENDER_FEATURES_ENABLE", "RUST_OTA_BOOTLOADER"),
            ("MENDER_UBOOT_AUTO_CONFIGURE", "boot logic"),
            ("MENDER_EXTRA_PARTS_SIZES_MB", "wks file"),
            ("MENDER_DATA_PART_FSTYPE", "ext4"),
        ):
            said = variables.warnings([name])
            self.assertEqual(len(said), 1, name)
            self.assertIn("%s has no effect" % name, said[0])
            self.assertIn(instead, said[0])

    def test_an_old_name_is_told_with_the_new_one(self):
        self.assertIn("MENDER_PARTITION_ALIGNMENT", variables.warnings(["MENDER_PARTITION_ALIGNMENT_KB"])[0])

    def test_every_variable_with_a_default_is_known(self):
        with open(os.path.join(LAYER, "conf/rust-ota-variables.inc"), encoding="utf-8") as file:
            set_here = {line.split()[0] for line in file if line.startswith("MENDER_")}
        self.assertEqual(set_here - variables.USED, set())


class Layout(Rules):
    def test_slots_are_as_large_as_meta_mender_makes_them(self):
        # 1024 MiB less 16 for the table, 16 boot and 128 data, halved, down to whole blocks of 8 MiB.
        self.assertEqual(layout.slot_kib(VALUES), 432 * 1024)

    def test_partitions_take_whole_blocks(self):
        self.assertEqual(layout.slot_kib({**VALUES, "MENDER_BOOT_PART_SIZE_MB": "17"}), 424 * 1024)

    def test_a_disk_smaller_than_its_partitions_is_refused(self):
        self.refused("MENDER_STORAGE_TOTAL_SIZE_MB", layout.slot_kib, "MENDER_DATA_PART_SIZE_MB (128)",
                     MENDER_STORAGE_TOTAL_SIZE_MB="160")

    def test_sizes_that_are_no_numbers_are_refused(self):
        for variable in ("MENDER_STORAGE_TOTAL_SIZE_MB", "MENDER_DATA_PART_SIZE_MB", "MENDER_BOOT_PART_SIZE_MB",
                         "MENDER_PARTITION_ALIGNMENT", "MENDER_RESERVED_SPACE_BOOTLOADER_DATA"):
            for text in ("", "8M", "-1", None):
                self.refused(variable, layout.slot_kib, **{variable: text})
        self.refused("MENDER_DATA_PART_SIZE_MB", layout.slot_kib, MENDER_DATA_PART_SIZE_MB="0")
        self.refused("MENDER_PARTITION_ALIGNMENT", layout.slot_kib, MENDER_PARTITION_ALIGNMENT="512")

    def test_an_image_larger_than_its_slot_is_refused(self):
        layout.check_image(1024, {"MENDER_CALC_ROOTFS_SIZE": "1"})
        self.refused("MENDER_STORAGE_TOTAL_SIZE_MB", lambda values: layout.check_image(1025, values), "2 KiB",
                     MENDER_CALC_ROOTFS_SIZE="1")

    def test_the_disk_has_boot_two_slots_and_data_by_name(self):
        lines = layout.kickstart(VALUES).splitlines()
        self.assertEqual([line.split("--part-name ")[1].split()[0] for line in lines[:4]],
                         ["boot", "rootfs-a", "rootfs-b", "data"])
        self.assertEqual([line.split("--fixed-size ")[1].split()[0] for line in lines[:4]],
                         ["16384K", "442368K", "442368K", "131072K"])
        # A label would be written into the copy of the image, and its checksum would not be the artifact's.
        self.assertNotIn("--label", layout.kickstart(VALUES))
        self.assertEqual(lines[4], "bootloader --ptable gpt")

    def test_without_a_boot_partition_the_numbers_have_to_say_so(self):
        without = {"MENDER_BOOT_PART_SIZE_MB": "0"}
        self.refused("MENDER_ROOTFS_PART_A_NUMBER", layout.kickstart, **without)
        numbers = {"MENDER_ROOTFS_PART_A_NUMBER": "1", "MENDER_ROOTFS_PART_B_NUMBER": "2", "MENDER_DATA_PART_NUMBER": "3"}
        self.assertNotIn("bootimg", layout.kickstart({**VALUES, **without, **numbers}))

    def test_a_bootloader_in_the_partition_table_is_refused(self):
        loader = {"MENDER_IMAGE_BOOTLOADER_FILE": "u-boot.bin"}
        name = "MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET"
        self.refused(name, layout.kickstart, "RUST_OTA_PARTITION_TABLE", **loader)
        self.refused(name, layout.kickstart, "MENDER_RESERVED_SPACE_BOOTLOADER_DATA", **loader, **{name: "16384"})
        self.assertIn("--no-table --offset 2s", layout.kickstart({**VALUES, **loader, "RUST_OTA_PARTITION_TABLE": "msdos"}))

    def test_a_partition_table_that_does_not_exist_is_refused(self):
        self.refused("RUST_OTA_PARTITION_TABLE", layout.kickstart, RUST_OTA_PARTITION_TABLE="mbr")

    def test_linux_names_partitions(self):
        self.assertEqual(layout.partition_base("/dev/mmcblk0"), "/dev/mmcblk0p")
        self.assertEqual(layout.partition_base("/dev/nvme0n1"), "/dev/nvme0n1p")
        self.assertEqual(layout.partition_base("/dev/sda"), "/dev/sda")

    def test_boot_and_data_are_mounted(self):
        lines = layout.fstab(VALUES).splitlines()
        self.assertEqual([line.split()[:2] for line in lines],
                         [["/dev/mmcblk0p1", "/boot/uboot"], ["/dev/mmcblk0p4", "/data"]])
        self.assertEqual(len(layout.fstab({**VALUES, "MENDER_BOOT_PART_SIZE_MB": "0"}).splitlines()), 1)


class Artifact(Rules):
    def test_an_artifact_needs_a_name_and_a_device(self):
        self.assertEqual(device.artifact(VALUES), [])
        self.refused("MENDER_ARTIFACT_NAME", device.artifact, MENDER_ARTIFACT_NAME="")
        self.refused("MENDER_ARTIFACT_NAME", device.artifact, MENDER_ARTIFACT_NAME="release 1")
        self.refused("MENDER_DEVICE_TYPES_COMPATIBLE", device.artifact, MENDER_DEVICE_TYPES_COMPATIBLE=" ")
        self.refused("MENDER_DEVICE_TYPES_COMPATIBLE", device.artifact, "would refuse its own update",
                     MENDER_DEVICE_TYPES_COMPATIBLE="other")

    def test_a_signature_that_nobody_verifies_is_refused(self):
        keys = {"MENDER_ARTIFACT_SIGNING_KEY": "/key", "MENDER_ARTIFACT_VERIFY_KEY": "/key.pub"}
        self.assertEqual(device.artifact({**VALUES, **keys}), [])
        self.refused("MENDER_ARTIFACT_VERIFY_KEY", device.artifact, MENDER_ARTIFACT_SIGNING_KEY="/key")

    def test_a_key_that_nobody_signs_with_is_only_told(self):
        said = device.artifact({**VALUES, "MENDER_ARTIFACT_VERIFY_KEY": "/key.pub"})
        self.assertIn("MENDER_ARTIFACT_SIGNING_KEY", said[0])

    def test_arguments_of_the_artifact_and_of_the_first_one(self):
        values = {**VALUES, "MENDER_DEVICE_TYPES_COMPATIBLE": "board board2", "MENDER_ARTIFACT_PROVIDES": "a:1",
                  "MENDER_ARTIFACT_PROVIDES_BOOTSTRAP": "b:2", "MENDER_ARTIFACT_SIGNING_KEY": "/my key"}
        self.assertEqual(device.artifact_arguments(values), [
            "--compatible-types", "board", "--compatible-types", "board2", "--key", "/my key", "--provides", "a:1"])
        self.assertEqual(device.artifact_arguments(values, bootstrap=True)[-4:], ["--provides", "a:1", "--provides", "b:2"])
        self.refused("MENDER_ARTIFACT_DEPENDS", device.artifact_arguments, MENDER_ARTIFACT_DEPENDS="version")

    def test_state_scripts_go_where_they_run(self):
        self.assertTrue(device.script_goes_to_artifact("ArtifactInstall_Enter_10_stop"))
        self.assertFalse(device.script_goes_to_artifact("Download_Leave_00"))
        for name in "ArtifactInstal_Enter_10", "README", "ArtifactCommit_Enter_1":
            self.refused("MENDER_STATE_SCRIPTS", lambda values, name=name: device.script_goes_to_artifact(name), name)


class Device(Rules):
    def test_the_configuration_has_what_was_set_and_nothing_else(self):
        values = {**VALUES, "MENDER_SERVER_URL": "https://example.com", "MENDER_UPDATE_POLL_INTERVAL_SECONDS": "60"}
        self.assertEqual(json.loads(device.configuration(values)), {
            "ServerURL": "https://example.com", "RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3",
            "UpdatePollIntervalSeconds": 60})

    def test_the_keys_of_the_board_win(self):
        read = json.loads(device.configuration(VALUES, '{"RootfsPartA": "/dev/ubi0_0", "RustOta": {"HealthCheck": "/x"}}'))
        self.assertEqual((read["RootfsPartA"], read["RustOta"]), ("/dev/ubi0_0", {"HealthCheck": "/x"}))
        self.refused("mender.conf", lambda values: device.configuration(values, "{"), "not JSON")
        self.refused("mender.conf", lambda values: device.configuration(values, "[]"), "object")

    def test_slots_that_are_missing_or_the_same_are_refused(self):
        self.refused("MENDER_ROOTFS_PART_A", device.configuration, MENDER_ROOTFS_PART_A="")
        self.refused("MENDER_ROOTFS_PART_B", device.configuration, MENDER_ROOTFS_PART_B="/dev/mmcblk0p2")
        self.refused("MENDER_RETRY_POLL_INTERVAL_SECONDS", device.configuration, MENDER_RETRY_POLL_INTERVAL_SECONDS="5m")

    def test_a_device_has_one_type(self):
        self.assertEqual(device.device_type("board"), "device_type=board\n")
        for name in "", None, "two types":
            self.refused("MENDER_DEVICE_TYPE", lambda values, name=name: device.device_type(name))

    def test_boot_settings_are_the_numbers_of_the_partitions(self):
        self.assertEqual(device.boot_settings(VALUES, "grub"), "set rota_part_a=2\nset rota_part_b=3\n")
        twelve = {**VALUES, "MENDER_ROOTFS_PART_B_NUMBER": "12"}
        self.assertIn("rota_part_b=12\nrota_part_b_hex=c\n", device.boot_settings(twelve, "u-boot"))
        self.assertNotIn("rota_root", device.boot_settings(VALUES, "u-boot"))
        msdos = {**VALUES, "RUST_OTA_PARTITION_TABLE": "msdos"}
        self.assertIn("rota_root_b=/dev/mmcblk0p3\n", device.boot_settings(msdos, "u-boot"))
        settings = lambda values: device.boot_settings(values, "grub")
        self.refused("MENDER_ROOTFS_PART_B_NUMBER", settings, MENDER_ROOTFS_PART_B_NUMBER="2")
        self.refused("MENDER_ROOTFS_PART_A_NUMBER", settings, MENDER_ROOTFS_PART_A_NUMBER="a")

    def test_the_environment_of_the_script_is_one_sector(self):
        self.assertEqual(device.environment(VALUES), ("/boot/uboot/uboot.env 0x0 0x200\n", 512, []))
        self.refused("RUST_OTA_FW_ENV_CONFIG", device.environment, RUST_OTA_FW_ENV_CONFIG="/boot/uboot/uboot.env 0 0x400")

    def test_an_environment_of_u_boot_has_two_copies_that_fit_together(self):
        name = "RUST_OTA_FW_ENV_CONFIG"
        native = {"RUST_OTA_UBOOT_ENV": "native"}
        good = {**VALUES, **native, name: r"/dev/mmcblk0 0x400000 0x4000\n/dev/mmcblk0 0x800000 0x4000"}
        self.assertEqual(device.environment(good)[1:], (0x4000, ["-r"]))
        for wrong, says in (
            ("", "is not set"),
            ("/dev/mmcblk0 0x400000", "DEVICE OFFSET SIZE"),
            (r"/dev/mmcblk0 0x400000 0x4000\n/dev/mmcblk0 0x402000 0x4000", "overlap"),
            (r"/dev/mmcblk0 0x400000 0x4000\n/dev/mmcblk0 0x800000 0x2000", "differ in size"),
            (r"/a 0 1\n/b 0 1\n/c 0 1", "3 lines"),
        ):
            self.refused(name, device.environment, says, **native, **{name: wrong})
        self.refused("RUST_OTA_UBOOT_ENV", device.environment, RUST_OTA_UBOOT_ENV="flash")


class Source(Rules):
    def test_the_checkout_is_the_source_unless_a_release_is_named(self):
        said = source.uris("", "/checkout", "LICENSE crates", "1.2.3", lambda path: True)
        self.assertEqual(said, "file://LICENSE;subdir=rust-ota-1.2.3 file://crates;subdir=rust-ota-1.2.3")
        self.assertEqual(source.uris("https://example.com/x.tar.xz", "/checkout", "crates", "1", lambda path: False),
                         "https://example.com/x.tar.xz")

    def test_neither_is_refused_with_the_name_of_the_variable(self):
        self.refused("RUST_OTA_SRC_URI",
                     lambda values: source.uris("", "/checkout", "crates", "1.2.3", lambda path: False), "release 1.2.3")

    def test_an_old_compiler_is_told_before_anything_is_built(self):
        self.assertIn("1.75%", source.rust_problem("1.75%", "1.85"))
        for version in "1.85%", "1.97.1%", "2.0", None, "":
            self.assertIsNone(source.rust_problem(version, "1.85"), version)
        # As numbers: 1.9 is older than 1.85, 1.100 is not.
        self.assertIsNotNone(source.rust_problem("1.9", "1.85"))
        self.assertIsNone(source.rust_problem("1.100", "1.85"))


class KeepRunning(unittest.TestCase):
    """The script that keeps the client running without systemd, with a client that ends at once."""

    def restarts(self, cmdline):
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            for name, text in (
                ("rust-ota", "echo client >> %s" % log),
                # Whoever is restarted runs no longer; without a restart the client is started again, which ends the test.
                ("reboot", "echo reboot >> %s; kill -TERM $PPID" % log),
                ("sleep", "[ $(grep -c client %s) -lt 8 ] || kill -TERM $PPID" % log),
            ):
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write("#!/bin/sh\n%s\n" % text)
                os.chmod(file.name, 0o755)
            with open(os.path.join(folder, "cmdline"), "w", encoding="utf-8") as file:
                file.write(cmdline)
            environment = {**os.environ, "PATH": folder + ":" + os.environ["PATH"], "RUST_OTA_CMDLINE": file.name}
            script = os.path.join(LAYER, "recipes-core/rust-ota/files/rust-ota-keep-running")
            subprocess.run(["sh", script], env=environment, timeout=60, check=True, stderr=subprocess.DEVNULL)
            with open(log, encoding="utf-8") as file:
                return file.read().split()

    def test_a_trial_whose_client_does_not_stay_up_is_restarted(self):
        self.assertEqual(self.restarts("root=/dev/sda2 rota.trial=1 ro"), ["client"] * 5 + ["reboot"])

    def test_a_committed_system_is_not_restarted(self):
        self.assertEqual(self.restarts("root=/dev/sda2 ro"), ["client"] * 8)


if __name__ == "__main__":
    unittest.main()
