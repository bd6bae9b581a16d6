CLASSOVERRIDE = "class-nativesdk"
python () {
    if not d.getVar("PN").startswith("nativesdk-"):
        d.setVar("PN", "nativesdk-" + d.getVar("PN"))
}
