# QEMU, x86-64, Debian's U-Boot "qemu-x86": boot.scr and the environment on a virtio disk, the slots on an NVMe disk. This
# U-Boot keeps no environment of its own.
rota_env=file
rota_env_addr=0x6000000
rota_prepare="nvme scan"
rota_slots="nvme 0"
rota_kernel_addr=0x1000000
rota_boot=zboot
rota_args="ro quiet console=ttyS0 panic=1 no_timer_check"
