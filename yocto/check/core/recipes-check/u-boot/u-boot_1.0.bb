SRC_URI = ""
