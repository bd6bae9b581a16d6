CLASSOVERRIDE = "class-native"
python () {
    if not d.getVar("PN").endswith("-native"):
        d.setVar("PN", d.getVar("PN") + "-native")
}
