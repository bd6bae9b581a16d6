# A recipe with state scripts: those whose names begin with Artifact go into the artifact (name the recipe in
# RUST_OTA_STATE_SCRIPTS of the image), the others (Idle, Sync, Download) onto the device.

inherit deploy

MENDER_STATE_SCRIPTS_DIR ?= "${S}/mender-state-scripts"
MENDER_STATE_SCRIPTS ?= "${MENDER_STATE_SCRIPTS_DIR}"

python rust_ota_sort_scripts() {
    import stat
    artifact, device = [], []
    for folder in d.getVar("MENDER_STATE_SCRIPTS").split():
        if not os.path.isdir(folder):
            bb.fatal("MENDER_STATE_SCRIPTS: there is no folder %s" % folder)
        for name in sorted(os.listdir(folder)):
            try:
                goes_to_artifact = rust_ota.device.script_goes_to_artifact(name)
            except rust_ota.VariableError as error:
                bb.fatal("%s/%s: %s" % (folder, name, error))
            (artifact if goes_to_artifact else device).append(os.path.join(folder, name))
    for kind, scripts in ("artifact", artifact), ("device", device):
        place = os.path.join(d.getVar("WORKDIR"), "sorted-scripts", kind)
        bb.utils.remove(place, recurse=True)
        bb.utils.mkdirhier(place)
        for script in scripts:
            target = os.path.join(place, os.path.basename(script))
            bb.utils.copyfile(script, target)
            os.chmod(target, 0o755)
}
do_install[prefuncs] += "rust_ota_sort_scripts"

do_install:append() {
    for script in ${WORKDIR}/sorted-scripts/device/*; do
        if [ -e "$script" ]; then
            install -d ${D}${sysconfdir}/mender/scripts
            install -m 0755 "$script" ${D}${sysconfdir}/mender/scripts
        fi
    done
    if [ -d ${D}${sysconfdir}/mender/scripts ]; then
        printf 3 > ${D}${sysconfdir}/mender/scripts/version
    fi
}

do_deploy() {
    for script in ${WORKDIR}/sorted-scripts/artifact/*; do
        if [ -e "$script" ]; then
            install -d ${DEPLOYDIR}/mender-state-scripts
            install -m 0755 "$script" ${DEPLOYDIR}/mender-state-scripts
        fi
    done
}
addtask deploy after do_install before do_build

FILES:${PN} += "${sysconfdir}/mender/scripts"
