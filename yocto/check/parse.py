"""Parses meta-rust-ota with the BitBake of the registry (bitbake-setup) over a stand-in for the core layer.

    parse.py WORK-FOLDER [PROGRAMS]

Every recipe has to parse in every variant, every mistake of MISTAKES has to skip the right recipe with the right sentence,
and all that the recipes name, crates and files of the checkout, has to be fetched with its checksum. With the folder of programs,
and mtools, dosfstools and e2fsprogs, the commands of the image types are run on a small root file system.
"""

import logging
import os
import shutil
import subprocess
import sys
import types

# The wheel has no hash server, and nothing here asks one.
server = types.ModuleType("hashserv")
server.client = types.ModuleType("hashserv.client")
server.is_valid_unihash = lambda unihash: True
sys.modules.update({"hashserv": server, "hashserv.client": server.client})

import bb
import bb.cookerdata
import bb.fetch2

HERE = os.path.dirname(os.path.abspath(__file__))
CORE = os.path.join(HERE, "core")
LAYER = os.path.join(os.path.dirname(HERE), "meta-rust-ota")

BOARD = 'INHERIT += "rust-ota"\nMENDER_ARTIFACT_NAME = "release-1"\n'
UBOOT = BOARD + 'RUST_OTA_BOOTLOADER = "u-boot"\nIMAGE_FSTYPES += "wic"\n'
GRUB = BOARD + 'RUST_OTA_BOOTLOADER = "grub"\nIMAGE_FSTYPES += "wic"\n'

# local.conf, the recipe that it spoils, and how the reason begins.
MISTAKES = (
    ('INHERIT += "rust-ota"\n', "check-image", "MENDER_ARTIFACT_NAME: is not set"),
    (BOARD + 'MENDER_DEVICE_TYPE = ""\n', "check-image", "MENDER_DEVICE_TYPES_COMPATIBLE: is empty"),
    (BOARD + 'MENDER_DEVICE_TYPE = ""\n', "rust-ota-conf", "MENDER_DEVICE_TYPE: is empty"),
    (BOARD + 'MENDER_ARTIFACT_SIGNING_KEY = "/etc/hostname"\n', "check-image", "MENDER_ARTIFACT_VERIFY_KEY: is not set"),
    (BOARD + 'MENDER_ARTIFACT_SIGNING_KEY = "/none"\nMENDER_ARTIFACT_VERIFY_KEY = "/etc/hostname"\n', "check-image",
     "MENDER_ARTIFACT_SIGNING_KEY: there is no file /none"),
    (BOARD + 'MENDER_ARTIFACT_VERIFY_KEY = "/none"\n', "rust-ota-conf", "MENDER_ARTIFACT_VERIFY_KEY: there is no file"),
    (BOARD + 'MENDER_ARTIFACT_VERIFY_KEY = "key.pem"\n', "rust-ota-conf", "MENDER_ARTIFACT_VERIFY_KEY: key.pem is not an"),
    (BOARD + 'MENDER_STORAGE_TOTAL_SIZE_MB = "100"\n', "check-image", "MENDER_STORAGE_TOTAL_SIZE_MB: 100 MiB leave no room"),
    (BOARD + 'MENDER_DATA_PART_SIZE_MB = "much"\n', "check-image", "MENDER_DATA_PART_SIZE_MB: 'much' is not a number"),
    (BOARD + 'MENDER_ROOTFS_PART_B = "${MENDER_ROOTFS_PART_A}"\n', "rust-ota-conf", "MENDER_ROOTFS_PART_B: is /dev"),
    (UBOOT + 'MENDER_DATA_PART_NUMBER = "7"\n', "check-image", "MENDER_DATA_PART_NUMBER: is 7"),
    (UBOOT + 'MENDER_IMAGE_BOOTLOADER_FILE = "u-boot.bin"\n', "check-image", "MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET:"),
    (UBOOT + 'RUST_OTA_UBOOT_ENV = "native"\n', "rust-ota-boot-uboot", "RUST_OTA_FW_ENV_CONFIG: is not set"),
    (GRUB + 'MENDER_ROOTFS_PART_B_NUMBER = "2"\n', "rust-ota-boot-grub", "MENDER_ROOTFS_PART_B_NUMBER: is 2"),
    ('RUST_OTA_CHECKOUT = "/none"\n', "rust-ota", "RUST_OTA_SRC_URI: is not set"),
    ('RUSTVERSION = "1.75%"\n', "rust-ota", "needs Rust 1.85 or later"),
)


class Configuration:
    """What BitBake's own command line would be."""

    def __init__(self):
        self.prefile, self.postfile = [], []
        self.tracking, self.skip_fragments = False, False
        self.env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


class Build:
    """The layer under one local.conf."""

    def __init__(self, work, local):
        conf = os.path.join(work, "conf")
        os.makedirs(conf, exist_ok=True)
        self.warned = []
        with open(os.path.join(conf, "bblayers.conf"), "w", encoding="utf-8") as file:
            file.write('BBPATH = "${TOPDIR}"\nBBFILES = ""\nBBLAYERS = "%s %s"\n' % (CORE, LAYER))
        with open(os.path.join(conf, "local.conf"), "w", encoding="utf-8") as file:
            file.write('DL_DIR = "%s/downloads"\n%s' % (work, local))
        os.chdir(work)
        self.builder = bb.cookerdata.CookerDataBuilder(Configuration())
        self.builder.parseBaseConfiguration()
        self.data = self.builder.data

    def recipes(self):
        """Every variant of every recipe of the layer, by name."""
        found = {}
        for folder, _, names in sorted(os.walk(LAYER)) + sorted(os.walk(CORE)):
            for name in sorted(names):
                if name.endswith(".bb"):
                    found.update(self.variants(os.path.join(folder, name)))
        return found

    def variants(self, path):
        base = os.path.basename(path).split("_")[0]
        appends = [os.path.join(LAYER, "recipes-bsp/u-boot/u-boot_%.bbappend")] if base == "u-boot" else []
        parsed = self.builder.parseRecipeVariants(path, appends=appends, layername="rust-ota")
        return {data.getVar("PN"): data for data in parsed.values()}


def fail(sentence):
    sys.exit("yocto/check: " + sentence)


def check_mistakes(work):
    for local, recipe, reason in MISTAKES:
        recipes = Build(work, local).recipes()
        said = recipes[recipe].getVar("__SKIPPED")
        if not (said or "").startswith(reason):
            fail("%s should be skipped with %r, and is with %r. local.conf:\n%s" % (recipe, reason, said, local))
    return len(MISTAKES)


def check_good(work, local, tasks):
    build = Build(work, local)
    recipes = build.recipes()
    for name, data in recipes.items():
        if data.getVar("__SKIPPED"):
            fail("%s is skipped: %s" % (name, data.getVar("__SKIPPED")))
        for task in tasks:
            # Expands everything that a task is made of.
            data.getVar(task)
    return build, recipes


def check_unknown(build):
    """The handler of the class sees the names that people wrote."""
    names = {key.split(":")[0] for key in build.data.keys() if key.startswith("MENDER_")}
    import rust_ota.variables
    said = rust_ota.variables.warnings(names)
    if said != ["MENDER_ARTIFCAT_NAME is not a variable of meta-rust-ota: did you mean MENDER_ARTIFACT_NAME?"]:
        fail("the misspelt variable is not told alone: %r" % said)


def fetch(recipes):
    """All of SRC_URI of every recipe. What was fetched before is only checked."""
    fetched = set()
    for name, data in recipes.items():
        uris = (data.getVar("SRC_URI") or "").split()
        if not uris:
            continue
        fetcher = bb.fetch2.Fetch(uris, data)
        fetcher.download()
        for uri in uris:
            if not os.path.exists(fetcher.localpath(uri)):
                fail("%s: %s is not there" % (name, uri))
        fetched.update(uris)
    return len(fetched)


def run_command(image, name, programs):
    """The shell function that an image type is, as BitBake would run it: with what it may call."""
    text = "set -e\nbbnote() { :; }\nbbfatal() { echo \"$@\" >&2; exit 1; }\n" + image.getVar(name)
    path = os.pathsep.join([programs, os.environ["PATH"], "/usr/sbin", "/sbin"])
    ended = subprocess.run(["sh", "-c", text], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def check_images(work, image, programs):
    """The image types on a small root file system: what is in the partitions and in the artifact."""
    deploy, parts = image.getVar("DEPLOY_DIR_IMAGE"), image.getVar("IMGDEPLOYDIR")
    data = os.path.join(image.getVar("WORKDIR"), "rust-ota-data")
    for folder in deploy, parts, data:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    os.makedirs(os.path.join(data, "mender"))
    for path, text in (
        (os.path.join(data, "mender/device_type"), "device_type=board\n"),
        (os.path.join(deploy, "boot.scr"), "script"),
        (os.path.join(deploy, "extra.dtb"), "tree"),
    ):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    base = os.path.join(parts, image.getVar("IMAGE_NAME"))
    with open(base + ".ext4", "wb") as file:
        file.write(bytes(1024 * 1024))
    code, said = run_command(image, "IMAGE_CMD:bootimg", programs)
    if code == 0 or "RUST_OTA_BOOT_FILES: there is no uboot.env" not in said:
        fail("a boot file that is missing is not told: %s" % said)
    with open(os.path.join(deploy, "uboot.env"), "wb") as file:
        file.write(bytes(512))
    for name in "IMAGE_CMD:mender", "IMAGE_CMD:bootstrap-artifact", "IMAGE_CMD:dataimg", "IMAGE_CMD:bootimg":
        code, said = run_command(image, name, programs)
        if code:
            fail("%s ends with %d: %s" % (name, code, said))

    def says(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    artifact = says(os.path.join(programs, "rust-ota-artifact"), "read", base + ".mender")
    bootstrap = says(os.path.join(programs, "rust-ota-artifact"), "read", base + ".bootstrap-artifact")
    boot = says("mdir", "-/", "-b", "-i", base + ".bootimg", "::")
    partition = says("/sbin/debugfs" if os.path.exists("/sbin/debugfs") else "debugfs", "-R", "ls -p /mender", base + ".dataimg")
    empty = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"
    for what, text, words in (
        ("artifact", artifact, ("release-1", "board", empty)),
        ("bootstrap artifact", bootstrap, ("release-1", "board", "rootfs-image.checksum", empty)),
        ("boot partition", boot, ("boot.scr", "uboot.env", "dtbs/extra.dtb")),
        ("data partition", partition, ("/bootstrap.mender/", "/device_type/")),
    ):
        for word in words:
            if word not in text:
                fail("the %s has no %s:\n%s" % (what, word, text))
    return 4


def main():
    work = os.path.abspath(sys.argv[1])
    programs = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
    logging.getLogger("BitBake").addHandler(logging.StreamHandler(sys.stderr))
    os.makedirs(work, exist_ok=True)
    mistakes = check_mistakes(work)
    tasks = "do_configure", "do_compile", "do_install", "do_deploy", "IMAGE_CMD:mender", "IMAGE_CMD:bootimg"
    check_good(work, "", tasks)
    check_good(work, GRUB, tasks)
    build, recipes = check_good(work, UBOOT + 'MENDER_ARTIFCAT_NAME:append = "x"\nIMAGE_BOOT_FILES = "extra.dtb;dtbs/"\n', tasks)
    check_unknown(build)
    image = recipes["check-image"]
    types = image.getVar("IMAGE_TYPEDEP:wic").split()
    if types != ["ext4", "dataimg", "bootimg"]:
        fail("the disk is made of %r" % types)
    if "rootfs-b" not in image.getVar("RUST_OTA_KICKSTART"):
        fail("the disk has no second slot")
    if "rust-ota-file.cfg" not in recipes["u-boot"].getVar("SRC_URI"):
        fail("U-Boot has not the options of the boot logic")
    fetched = fetch(recipes)
    images = check_images(work, image, programs) if programs else 0
    print("yocto/check: %d recipes, %d mistakes, %d fetched, %d image types" % (len(recipes), mistakes, fetched, images))


if __name__ == "__main__":
    main()
