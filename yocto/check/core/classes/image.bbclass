IMAGE_FSTYPES ?= "ext4"
inherit_defer ${IMAGE_CLASSES}
