# QEMU "virt": boot.scr, uboot.env and the slots are on one disk.
rota_boot=booti
rota_kernel=/boot/Image
rota_fdt_addr=${fdtcontroladdr}
rota_bootargs="rootwait panic=1 console=ttyAMA0"
