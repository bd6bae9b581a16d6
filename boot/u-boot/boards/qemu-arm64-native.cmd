# QEMU "virt" with U-Boot qemu_arm64 that keeps its environment itself: everything on one NVMe disk.
rota_env=native
rota_boot=booti
rota_fdt_addr=${fdtcontroladdr}
rota_bootargs="ro rootwait panic=1 console=ttyAMA0 quiet"
