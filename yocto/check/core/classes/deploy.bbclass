DEPLOYDIR = "${WORKDIR}/deploy"
