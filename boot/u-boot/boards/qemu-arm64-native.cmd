# QEMU, aarch64, a U-Boot that keeps its environment itself, redundant, in FAT or in NOR flash: everything on one NVMe disk.
rota_env=native
rota_args="ro quiet console=ttyAMA0 panic=1"
