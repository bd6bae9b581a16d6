# rust-ota: chooses the slot to boot from the variables of docs/boot-environment.md, counts the boots of a trial,
# and falls back to the other slot when the trial is over its limit.
#
# Put the board's settings in front and compile:
#   cp board.cmd.example board.cmd
#   cat board.cmd boot.cmd > all.cmd
#   mkimage -A arm64 -T script -C none -n rust-ota -d all.cmd boot.scr
# Settings are described in board.cmd.example. All names of this script begin with rota_ and are local variables of
# the shell, so that saveenv never stores them.

# ---- Settings that the board did not set ----

if test -z "${rota_env}"; then rota_env=native; fi
if test -z "${rota_count}"; then rota_count=script; fi
if test -z "${rota_part_a}"; then rota_part_a=2; fi
if test -z "${rota_part_b}"; then rota_part_b=3; fi
if test -z "${rota_part_a_hex}"; then rota_part_a_hex=${rota_part_a}; fi
if test -z "${rota_part_b_hex}"; then rota_part_b_hex=${rota_part_b}; fi
if test -z "${rota_interface}"; then rota_interface=${devtype}; fi
if test -z "${rota_device}"; then rota_device=${devnum}; fi
if test -z "${rota_root_a}"; then rota_root_a=PARTLABEL=rootfs-a; fi
if test -z "${rota_root_b}"; then rota_root_b=PARTLABEL=rootfs-b; fi
if test -z "${rota_kernel}"; then rota_kernel=/boot/vmlinuz; fi
if test -z "${rota_kernel_addr}"; then rota_kernel_addr=${kernel_addr_r}; fi
if test -z "${rota_boot}"; then rota_boot=booti; fi
if test -z "${rota_initrd_addr}"; then rota_initrd_addr=${ramdisk_addr_r}; fi
if test -z "${rota_bootargs}"; then rota_bootargs="rw rootwait panic=5"; fi
if test -z "${rota_fdt_addr}"; then
  if test -n "${rota_fdt}"; then
    rota_fdt_addr=${fdt_addr_r}
  elif test "${rota_boot}" != bootm; then
    rota_fdt_addr=${fdtcontroladdr}
  fi
fi
if test -z "${rota_env_file}"; then rota_env_file=uboot.env; fi
if test -z "${rota_env_interface}"; then rota_env_interface=${devtype}; fi
if test -z "${rota_env_device}"; then rota_env_device=${devnum}:${distro_bootpart}; fi
if test -z "${rota_env_addr}"; then rota_env_addr=${ramdisk_addr_r}; fi

# ---- Read the variables ----

rota_vars="mender_boot_part mender_boot_part_hex upgrade_available bootcount bootlimit ${rota_keep}"
rota_valid=no
if test "${rota_env}" = native; then
  rota_valid=yes
elif test "${rota_env}" = file; then
  if load ${rota_env_interface} ${rota_env_device} ${rota_env_addr} ${rota_env_file}; then
    # Exactly one sector, or the write below would not be all or nothing.
    if test "${filesize}" = 200; then
      if env import -c ${rota_env_addr} 0x200 ${rota_vars}; then rota_valid=yes; fi
    fi
  fi
fi

# The decimal number decides, as it does for the client; the hexadecimal one is only written.
rota_selected=a
rota_other=b
if test "${mender_boot_part}" = "${rota_part_b}"; then
  rota_selected=b
  rota_other=a
elif test "${mender_boot_part}" != "${rota_part_a}"; then
  rota_valid=no
fi

# A limit that is not a number from 1 to 9 is 1. What the count becomes with this boot: empty when the count makes no
# sense or is at 9. Where U-Boot counts, it has done so already.
rota_limit=1
rota_next=
rota_counted=${bootcount}
if test -z "${rota_counted}"; then rota_counted=0; fi
rota_before=0
for rota_n in 1 2 3 4 5 6 7 8 9; do
  if test "${bootlimit}" = "${rota_n}"; then rota_limit=${rota_n}; fi
  if test "${rota_count}" = uboot; then rota_before=${rota_n}; fi
  if test "${rota_counted}" = "${rota_before}"; then rota_next=${rota_n}; fi
  rota_before=${rota_n}
done

# ---- Decide ----

# rota_order names the slots to try, in this order. With one name there is no last resort.
rota_order="${rota_selected} ${rota_other}"
rota_why=
rota_save=no
rota_trial=no
if test "${rota_valid}" = no; then
  echo "rust-ota: *** the environment is corrupt *** nothing is written"
  rota_order="a b"
  rota_why="environment corrupt"
elif test "${upgrade_available}" = 1; then
  rota_over=no
  if test -z "${rota_next}"; then
    rota_over=yes
  elif test ${rota_next} -gt ${rota_limit}; then
    rota_over=yes
  fi
  if test ${rota_over} = yes; then
    echo "rust-ota: slot ${rota_selected} had its boots (bootcount=${bootcount}, limit ${rota_limit}), falls back"
    rota_order="${rota_other} ${rota_selected}"
    rota_save=yes
    if test ${rota_other} = a; then
      setenv mender_boot_part ${rota_part_a}
      setenv mender_boot_part_hex ${rota_part_a_hex}
    else
      setenv mender_boot_part ${rota_part_b}
      setenv mender_boot_part_hex ${rota_part_b_hex}
    fi
    setenv upgrade_available 0
    setenv bootcount 0
  else
    rota_order=${rota_selected}
    rota_trial=yes
    # Also where U-Boot has counted: it does not look whether its save worked.
    rota_save=yes
    setenv bootcount ${rota_next}
  fi
fi

# ---- Save, once, and only what is on trial ----

rota_saved=no
if test ${rota_save} = yes; then
  if test "${rota_env}" = file; then
    if env export -c -s 0x200 ${rota_env_addr} ${rota_vars}; then
      if fatwrite ${rota_env_interface} ${rota_env_device} ${rota_env_addr} ${rota_env_file} 0x200; then
        # Believe the medium, not the driver.
        if load ${rota_env_interface} ${rota_env_device} ${rota_kernel_addr} ${rota_env_file}; then
          if test "${filesize}" = 200; then
            if cmp.b ${rota_env_addr} ${rota_kernel_addr} 0x200; then rota_saved=yes; fi
          fi
        fi
      fi
    fi
  else
    # Left by the load of this script.
    setenv filesize
    setenv fileaddr
    if saveenv; then rota_saved=yes; fi
  fi
  if test ${rota_saved} = no; then
    # A trial that is not counted could go on for ever. The other slot is the one that worked before.
    echo "rust-ota: *** cannot save the environment *** slot ${rota_selected} is not started"
    rota_order=${rota_other}
    rota_why="environment not saved"
    rota_trial=no
  fi
fi

# ---- Boot ----

if test -z "${rota_why}"; then rota_why="upgrade_available=${upgrade_available}, bootcount=${bootcount}"; fi
# For what restarts a trial that does not come up, and only that.
rota_word=
if test ${rota_trial} = yes; then rota_word="rota.trial=1 "; fi
for rota_slot in ${rota_order}; do
  if test ${rota_slot} = a; then
    rota_part=${rota_part_a}
    rota_part_hex=${rota_part_a_hex}
    rota_root=${rota_root_a}
  else
    rota_part=${rota_part_b}
    rota_part_hex=${rota_part_b_hex}
    rota_root=${rota_root_b}
  fi
  echo "rust-ota: boots slot ${rota_slot} (partition ${rota_part}), ${rota_why}"

  rota_ready=no
  rota_size=
  rota_initrd_size=
  rota_ramdisk=-
  if load ${rota_interface} ${rota_device}:${rota_part_hex} ${rota_kernel_addr} ${rota_kernel}; then
    rota_ready=yes
    rota_size=${filesize}
  fi
  if test ${rota_ready} = yes -a -n "${rota_fdt}"; then
    rota_ready=no
    if load ${rota_interface} ${rota_device}:${rota_part_hex} ${rota_fdt_addr} ${rota_fdt}; then rota_ready=yes; fi
  fi
  if test ${rota_ready} = yes -a -n "${rota_initrd}"; then
    rota_ready=no
    if load ${rota_interface} ${rota_device}:${rota_part_hex} ${rota_initrd_addr} ${rota_initrd}; then
      rota_ready=yes
      rota_initrd_size=${filesize}
      rota_ramdisk=${rota_initrd_addr}:${filesize}
    fi
  fi

  if test ${rota_ready} = yes; then
    setenv bootargs "root=${rota_root} rota.slot=${rota_slot} ${rota_word}${rota_bootargs}"
    if test "${rota_boot}" = booti; then
      booti ${rota_kernel_addr} ${rota_ramdisk} ${rota_fdt_addr}
    elif test "${rota_boot}" = bootz; then
      bootz ${rota_kernel_addr} ${rota_ramdisk} ${rota_fdt_addr}
    elif test "${rota_boot}" = zboot; then
      if test -n "${rota_initrd}"; then
        zboot ${rota_kernel_addr} ${rota_size} ${rota_initrd_addr} ${rota_initrd_size}
      else
        zboot ${rota_kernel_addr} ${rota_size}
      fi
    elif test -n "${rota_initrd}${rota_fdt_addr}"; then
      bootm ${rota_kernel_addr} ${rota_ramdisk} ${rota_fdt_addr}
    else
      bootm ${rota_kernel_addr}
    fi
  fi
  echo "rust-ota: slot ${rota_slot} cannot be started"
done

# Never back to the caller: it would look for something else to boot.
if test ${rota_trial} = yes; then
  echo "rust-ota: the trial failed, resets"
else
  echo "rust-ota: no slot can be started, resets"
fi
sleep 1
reset
