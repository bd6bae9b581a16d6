# QEMU "virt" with U-Boot qemu_arm: everything on one virtio disk, uboot.env beside boot.scr, a kernel with an initial RAM
# disk.
rota_env=file
rota_boot=bootz
rota_initrd=/boot/initrd
rota_fdt_addr=${fdtcontroladdr}
rota_bootargs="ro rootwait panic=1 console=ttyAMA0 quiet"
