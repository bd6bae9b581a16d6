# What an image is made into besides a file system, by names that meta-mender has too:
#
#   mender              the update artifact, signed if there is a key, with the state scripts that were deployed
#   bootstrap-artifact  what a new device knows of itself before its first update
#   bootimg, dataimg    the boot and the data partition
#   wic                 the whole disk, if WKS_FILE is the one of this layer (the default)
#
# Nothing is decided here: lib/rust_ota decides, before anything is built, and an image whose variables are wrong is skipped
# with the reason.

ARTIFACTIMG_FSTYPE ??= "ext4"
RUST_OTA_WKS = "${LAYERDIR_RUST_OTA}/files/wic/rust-ota.wks.in"
WKS_FILE ??= "${RUST_OTA_WKS}"

# Recipes whose state scripts are to be in the artifact.
RUST_OTA_STATE_SCRIPTS ?= ""

# Files of the boot partition, out of DEPLOY_DIR_IMAGE; words as in IMAGE_BOOT_FILES.
RUST_OTA_BOOT_FILES ??= "${IMAGE_BOOT_FILES}"
RUST_OTA_BOOT_FILES:append:rust-ota-uboot = " boot.scr ${@'uboot.env' if d.getVar('RUST_OTA_UBOOT_ENV') == 'file' else ''}"
RUST_OTA_BOOT_FILES:append:rust-ota-grub = " \
    grub-efi-${EFI_BOOT_IMAGE};EFI/BOOT/${EFI_BOOT_IMAGE} \
    rust-ota-grub/grub.cfg;EFI/BOOT/grub.cfg \
    rust-ota-grub/board.cfg;EFI/BOOT/board.cfg \
    rust-ota-grub/grub-mender-grubenv;grub-mender-grubenv \
"
RUST_OTA_BOOT_DEPENDS ??= ""
RUST_OTA_BOOT_DEPENDS:append:rust-ota-uboot = " rust-ota-boot-uboot:do_deploy virtual/bootloader:do_deploy"
RUST_OTA_BOOT_DEPENDS:append:rust-ota-grub = " rust-ota-boot-grub:do_deploy grub-efi:do_deploy"
# EFI_BOOT_IMAGE.
require conf/image-uefi.conf

IMAGE_TYPEDEP:mender = "${ARTIFACTIMG_FSTYPE}"
IMAGE_TYPEDEP:bootstrap-artifact = "${ARTIFACTIMG_FSTYPE}"
IMAGE_TYPEDEP:dataimg = "bootstrap-artifact"
IMAGE_TYPEDEP:wic = "${@d.getVar('ARTIFACTIMG_FSTYPE') + ' dataimg' if rust_ota_makes_disk(d) else ''}"
IMAGE_TYPEDEP:wic .= "${@' bootimg' if rust_ota_makes_disk(d) and d.getVar('MENDER_BOOT_PART_SIZE_MB') != '0' else ''}"

# Whether the disk is the one of this layer, and not one of the board.
def rust_ota_makes_disk(d):
    types = {name.split(".")[0] for name in d.getVar("IMAGE_FSTYPES").split()}
    return "wic" in types and d.getVar("WKS_FILE") == d.getVar("RUST_OTA_WKS")

do_image_mender[depends] += "rust-ota-artifact-native:do_populate_sysroot"
do_image_mender[depends] += "${@' '.join(recipe + ':do_deploy' for recipe in d.getVar('RUST_OTA_STATE_SCRIPTS').split())}"
do_image_mender[prefuncs] += "rust_ota_check_image"
do_image_bootstrap_artifact[depends] += "rust-ota-artifact-native:do_populate_sysroot"
do_image_bootimg[depends] += "dosfstools-native:do_populate_sysroot mtools-native:do_populate_sysroot ${RUST_OTA_BOOT_DEPENDS}"
do_image_dataimg[depends] += "e2fsprogs-native:do_populate_sysroot"
# Another key under the same name makes another artifact.
RUST_OTA_KEY_CHECKSUM = "${@d.getVar('MENDER_ARTIFACT_SIGNING_KEY') + ':True' if d.getVar('MENDER_ARTIFACT_SIGNING_KEY') else ''}"
do_image_mender[file-checksums] += "${RUST_OTA_KEY_CHECKSUM}"
do_image_bootstrap_artifact[file-checksums] += "${RUST_OTA_KEY_CHECKSUM}"

# Made of values, so that the tasks see a change of what they are made of.
RUST_OTA_ARGUMENTS = ""
RUST_OTA_BOOTSTRAP_ARGUMENTS = ""
RUST_OTA_KICKSTART = ""
RUST_OTA_REMARKS = ""
RUST_OTA_FSTAB = ""

python () {
    types = {name.split(".")[0] for name in d.getVar("IMAGE_FSTYPES").split()}
    disk = rust_ota_makes_disk(d)
    if not types & {"mender", "bootstrap-artifact", "dataimg", "bootimg"} and not disk:
        return
    try:
        values = rust_ota_values(d)
        d.setVar("RUST_OTA_REMARKS", "\n".join(rust_ota.device.artifact(values)))
        key = values["MENDER_ARTIFACT_SIGNING_KEY"]
        if key and not os.path.isfile(key):
            raise rust_ota.VariableError("MENDER_ARTIFACT_SIGNING_KEY", "there is no file %s" % key)
        import shlex
        d.setVar("RUST_OTA_ARGUMENTS", shlex.join(rust_ota.device.artifact_arguments(values)))
        d.setVar("RUST_OTA_BOOTSTRAP_ARGUMENTS", shlex.join(rust_ota.device.artifact_arguments(values, bootstrap=True)))
        d.setVar("MENDER_CALC_ROOTFS_SIZE", str(rust_ota.layout.slot_kib(values)))
        if disk:
            values["RUST_OTA_ROOTFS_TYPE"] = d.getVar("ARTIFACTIMG_FSTYPE")
            # Expanded later: a path of this build is no part of what the disk is made of.
            values["RUST_OTA_IMAGE_BASE"] = "${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}"
            d.setVar("RUST_OTA_KICKSTART", rust_ota.layout.kickstart(values))
            d.setVar("RUST_OTA_FSTAB", rust_ota.layout.fstab(values))
    except rust_ota.VariableError as error:
        raise bb.parse.SkipRecipe(str(error))
}

ROOTFS_POSTPROCESS_COMMAND += "${@'rust_ota_lay_out_rootfs' if rust_ota_makes_disk(d) else ''}"
# The mounts of the partitions that are not in the artifact.
rust_ota_lay_out_rootfs() {
    install -d ${IMAGE_ROOTFS}/data ${IMAGE_ROOTFS}${MENDER_BOOT_PART_MOUNT_LOCATION}
    printf '%s' "${RUST_OTA_FSTAB}" >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
    # What recipes install into /data goes to the data partition, not into the slots below its mount point.
    rm -rf ${WORKDIR}/rust-ota-data
    mv ${IMAGE_ROOTFS}/data ${WORKDIR}/rust-ota-data
    install -d -m 0755 ${IMAGE_ROOTFS}/data
}
# Owners of files are remembered there as well. Releases before 6.0 have the opposite list and need nothing.
PSEUDO_INCLUDE_PATHS .= ",${WORKDIR}/rust-ota-data"

# The journal would be replayed by a mount, and the slot would no longer have the checksum of the artifact.
EXTRA_IMAGECMD:ext4:append = "${@bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', ' -O ^has_journal', '', d)}"

# mkfs dates what it makes by the sources of the recipe. An image has none, which is taken for 2011; a clock that is set by a
# file of that date (systemd has one) takes every certificate for one of the future.
python rust_ota_date_file_system() {
    d.setVar("SOURCE_DATE_EPOCH", str(int(os.stat(d.getVar("IMAGE_ROOTFS")).st_mtime)))
}
do_image_ext4[prefuncs] += "rust_ota_date_file_system"

python rust_ota_check_image() {
    for sentence in d.getVar("RUST_OTA_REMARKS").splitlines():
        bb.warn(sentence)
    image = d.expand("${IMGDEPLOYDIR}/${IMAGE_NAME}.${ARTIFACTIMG_FSTYPE}")
    try:
        rust_ota.layout.check_image(os.path.getsize(image), {"MENDER_CALC_ROOTFS_SIZE": d.getVar("MENDER_CALC_ROOTFS_SIZE")})
    except rust_ota.VariableError as error:
        bb.fatal(str(error))
}
do_image_mender[vardeps] += "MENDER_CALC_ROOTFS_SIZE"

IMAGE_CMD:mender () {
    scripts=""
    if [ -d "${DEPLOY_DIR_IMAGE}/mender-state-scripts" ]; then
        bbnote "state scripts of the artifact: $(ls "${DEPLOY_DIR_IMAGE}/mender-state-scripts" | tr '\n' ' ')"
        scripts="--script ${DEPLOY_DIR_IMAGE}/mender-state-scripts"
    fi
    rust-ota-artifact write rootfs-image --no-progress \
        --artifact-name "${MENDER_ARTIFACT_NAME}" ${RUST_OTA_ARGUMENTS} $scripts \
        --file "${IMGDEPLOYDIR}/${IMAGE_NAME}.${ARTIFACTIMG_FSTYPE}" ${MENDER_ARTIFACT_EXTRA_ARGS} \
        --output-path "${IMGDEPLOYDIR}/${IMAGE_NAME}.mender"
}

IMAGE_CMD:bootstrap-artifact () {
    checksum=$(sha256sum "${IMGDEPLOYDIR}/${IMAGE_NAME}.${ARTIFACTIMG_FSTYPE}" | cut -d ' ' -f 1)
    rust-ota-artifact write bootstrap-artifact --no-progress \
        --artifact-name "${MENDER_ARTIFACT_NAME_BOOTSTRAP}" ${RUST_OTA_BOOTSTRAP_ARGUMENTS} \
        --provides "rootfs-image.version:${MENDER_ARTIFACT_NAME}" --provides "rootfs-image.checksum:$checksum" \
        --clears-provides "rootfs-image.*" \
        --output-path "${IMGDEPLOYDIR}/${IMAGE_NAME}.bootstrap-artifact"
}

IMAGE_CMD:dataimg () {
    data="${WORKDIR}/rust-ota-data"
    install -d "$data"
    if [ ! -d "$data/mender" ]; then
        install -d -m 0700 "$data/mender"
    fi
    install -m 0400 "${IMGDEPLOYDIR}/${IMAGE_NAME}.bootstrap-artifact" "$data/mender/bootstrap.mender"
    image="${IMGDEPLOYDIR}/${IMAGE_NAME}.dataimg"
    rm -f "$image"
    truncate -s "${MENDER_DATA_PART_SIZE_MB}M" "$image"
    mkfs.ext4 -q -F -d "$data" -L "${MENDER_DATA_PART_LABEL}" ${MENDER_DATA_PART_FSOPTS} "$image"
}

IMAGE_CMD:bootimg () {
    boot="${WORKDIR}/rust-ota-boot"
    rm -rf "$boot"
    install -d "$boot"
    files="${RUST_OTA_BOOT_FILES}"
    for entry in $files; do
        case "$entry" in
        *";"*) place="${entry#*;}" ;;
        *) place="" ;;
        esac
        for file in ${DEPLOY_DIR_IMAGE}/${entry%%;*}; do
            if [ ! -e "$file" ]; then
                bbfatal "RUST_OTA_BOOT_FILES: there is no ${entry%%;*} in ${DEPLOY_DIR_IMAGE}"
            fi
            case "$place" in
            "") to="$(basename "$file")" ;;
            */) to="$place$(basename "$file")" ;;
            *) to="$place" ;;
            esac
            install -d "$boot/$(dirname "$to")"
            cp -rL "$file" "$boot/$to"
        done
    done
    image="${IMGDEPLOYDIR}/${IMAGE_NAME}.bootimg"
    rm -f "$image"
    truncate -s "${MENDER_BOOT_PART_SIZE_MB}M" "$image"
    # One sector a cluster: the save of uboot.env is one sector then, which a disk writes whole or not at all.
    mkfs.vfat -s 1 -n "${MENDER_BOOT_PART_LABEL}" "$image"
    for file in "$boot"/*; do
        mcopy -s -i "$image" "$file" "::$(basename "$file")"
    done
}
