# QEMU "virt" with U-Boot qemu_arm64: everything on one NVMe disk, uboot.env beside boot.scr.
rota_env=file
rota_boot=booti
rota_fdt_addr=${fdtcontroladdr}
rota_bootargs="ro rootwait panic=1 console=ttyAMA0 quiet"
