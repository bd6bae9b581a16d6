# QEMU's "virt" machine: one virtio disk, uboot.env beside boot.scr.
rota_env=file
rota_boot=booti
rota_kernel=/boot/Image
rota_fdt_addr=${fdtcontroladdr}
rota_bootargs="ro rootwait panic=1 console=ttyAMA0"
