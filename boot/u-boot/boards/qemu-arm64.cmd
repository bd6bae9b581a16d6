# QEMU, aarch64, Debian's U-Boot "qemu_arm64": everything on one NVMe disk. The environment of this U-Boot is in flash, which
# the kernels of Debian do not see: it is kept in a file instead.
rota_env=file
rota_env_addr=0x50000000
rota_args="ro quiet console=ttyAMA0 panic=1"
