# QEMU "pc" with U-Boot qemu-x86: boot.scr and uboot.env on a small virtio disk, the slots on an NVMe disk.
nvme scan
rota_env=file
rota_interface=nvme
rota_device=0
rota_kernel_addr=0x1000000
rota_boot=zboot
rota_bootargs="ro rootwait panic=1 console=ttyS0 no_timer_check quiet"
