# rust-ota: which system boots. A script for U-Boot 2020 and later with the hush shell; README.md says how to compile it.
#
# Rules:
#   - nothing is written while no trial is on;
#   - a trial is counted before it is started, and a trial that cannot be counted is not started;
#   - over the limit the other system is selected again;
#   - one save for each boot, and no guess is ever saved.
# What survives a power cut anywhere is enumerated by the tests of rust-ota over a model of this file:
# crates/testkit/src/bootloader/uboot.rs. Keep them alike.
#
# Settings are variables that a board's header sets before this text (board.cmd.example lists them). What begins with rota_
# is a variable of the shell and not of the environment: saveenv does not save it. There is no arithmetic, because not every
# U-Boot has it.

if test -z "${rota_env}"; then rota_env=native; fi
if test -z "${rota_part_a}"; then rota_part_a=2; fi
if test -z "${rota_part_b}"; then rota_part_b=3; fi
if test -z "${rota_slots}"; then rota_slots="${devtype} ${devnum}"; fi
if test -z "${rota_kernel}"; then rota_kernel=/boot/vmlinuz; fi
if test -z "${rota_kernel_addr}"; then rota_kernel_addr=${kernel_addr_r}; fi
if test -z "${rota_boot}"; then rota_boot=booti; fi
if test -z "${rota_fdt_addr}"; then rota_fdt_addr=${fdtcontroladdr}; fi
if test -z "${rota_root_a}"; then rota_root_a=PARTLABEL=rootfs-a; fi
if test -z "${rota_root_b}"; then rota_root_b=PARTLABEL=rootfs-b; fi
if test -z "${rota_env_addr}"; then rota_env_addr=${loadaddr}; fi
if test -z "${rota_env_addr}"; then rota_env_addr=${kernel_addr_r}; fi
if test -z "${rota_env_place}"; then rota_env_place="${devtype} ${devnum}:${distro_bootpart}"; fi
if test -z "${rota_env_file}"; then rota_env_file=uboot.env; fi
if test -n "${rota_prepare}"; then ${rota_prepare}; fi

# The environment. In a file it is one sector: a disk writes it whole or not at all.
if test "${rota_env}" = file; then
  setenv mender_boot_part
  setenv mender_boot_part_hex
  setenv upgrade_available
  setenv bootcount
  setenv bootlimit
  if load ${rota_env_place} ${rota_env_addr} ${rota_env_file} 0x200; then
    if env import -c ${rota_env_addr} 0x200 mender_boot_part mender_boot_part_hex upgrade_available bootcount bootlimit; then
      echo "rust-ota: environment read"
    else
      echo "rust-ota: the environment has a wrong checksum"
    fi
  else
    echo "rust-ota: there is no environment"
  fi
fi
if test -z "${bootlimit}"; then setenv bootlimit 1; fi

# Whether it makes sense.
rota_whole=0
rota_slot=a
if test "${mender_boot_part}" = "${rota_part_a}"; then rota_whole=1; fi
if test "${mender_boot_part}" = "${rota_part_b}"; then rota_whole=1; rota_slot=b; fi
if test "${upgrade_available}" != 1; then
  if test -n "${upgrade_available}" && test "${upgrade_available}" != 0; then rota_whole=0; fi
fi

# The decision.
rota_trial=0
rota_save=0
if test ${rota_whole} = 0; then
  echo "rust-ota: the environment is corrupt: nothing is written, and slot ${rota_slot} is tried first"
elif test "${upgrade_available}" = 1; then
  rota_save=1
  rota_next=over
  if test -z "${bootcount}"; then rota_next=1; fi
  if test "${bootcount}" = 0; then rota_next=1; fi
  if test "${bootcount}" = 1; then rota_next=2; fi
  if test "${bootcount}" = 2; then rota_next=3; fi
  if test "${bootcount}" = 3; then rota_next=4; fi
  if test "${bootcount}" = 4; then rota_next=5; fi
  if test "${bootcount}" = 5; then rota_next=6; fi
  if test "${bootcount}" = 6; then rota_next=7; fi
  if test "${bootcount}" = 7; then rota_next=8; fi
  if test "${bootcount}" = 8; then rota_next=9; fi
  if test ${rota_next} != over; then
    if test ${rota_next} -gt ${bootlimit}; then rota_next=over; fi
  fi
  if test ${rota_next} = over; then
    echo "rust-ota: ${bootcount} boots of the trial without a commit: falls back"
    if test ${rota_slot} = a; then rota_slot=b; else rota_slot=a; fi
    if test ${rota_slot} = a; then setenv mender_boot_part ${rota_part_a}; else setenv mender_boot_part ${rota_part_b}; fi
    if test ${rota_slot} = a; then rota_hex=${rota_hex_a}; else rota_hex=${rota_hex_b}; fi
    if test -z "${rota_hex}"; then rota_hex=${mender_boot_part}; fi
    setenv mender_boot_part_hex ${rota_hex}
    setenv upgrade_available 0
    setenv bootcount 0
  else
    rota_trial=1
    setenv bootcount ${rota_next}
  fi
fi

# One save, read back where that can be done.
if test ${rota_save} = 1; then
  rota_saved=0
  if test "${rota_env}" = file; then
    env export -c -s 0x200 ${rota_env_addr} mender_boot_part mender_boot_part_hex upgrade_available bootcount bootlimit
    if fatwrite ${rota_env_place} ${rota_env_addr} ${rota_env_file} 0x200; then
      if load ${rota_env_place} ${rota_kernel_addr} ${rota_env_file} 0x200; then
        if cmp.b ${rota_env_addr} ${rota_kernel_addr} 0x200; then rota_saved=1; fi
      fi
    fi
  else
    if saveenv; then rota_saved=1; fi
  fi
  if test ${rota_saved} = 0 && test ${rota_trial} = 1; then
    rota_trial=0
    if test ${rota_slot} = a; then rota_slot=b; else rota_slot=a; fi
    echo "rust-ota: the trial cannot be counted: slot ${rota_slot} is started instead"
  fi
fi

# The selected system; where nothing is on trial and it is gone, the other one is better than none. That is not saved.
for rota_attempt in first second; do
  if test ${rota_slot} = a; then rota_part=${rota_part_a}; else rota_part=${rota_part_b}; fi
  if test ${rota_slot} = a; then rota_root=${rota_root_a}; else rota_root=${rota_root_b}; fi
  echo "rust-ota: boots slot ${rota_slot} (partition ${rota_part}), upgrade_available=${upgrade_available}, bootcount=${bootcount}"
  setenv bootargs "root=${rota_root} rota.slot=${rota_slot} ${rota_args}"
  if load ${rota_slots}:${rota_part} ${rota_kernel_addr} ${rota_kernel}; then
    rota_size=${filesize}
    rota_ramdisk=-
    if test -n "${rota_initrd}"; then
      if load ${rota_slots}:${rota_part} ${ramdisk_addr_r} ${rota_initrd}; then rota_ramdisk=${ramdisk_addr_r}:${filesize}; fi
    fi
    if test -n "${rota_devicetree}"; then
      if load ${rota_slots}:${rota_part} ${fdt_addr_r} ${rota_devicetree}; then rota_fdt_addr=${fdt_addr_r}; fi
    fi
    if test ${rota_boot} = zboot; then
      zboot ${rota_kernel_addr} ${rota_size}
    else
      ${rota_boot} ${rota_kernel_addr} ${rota_ramdisk} ${rota_fdt_addr}
    fi
  fi
  echo "rust-ota: slot ${rota_slot} cannot be started"
  if test ${rota_trial} = 1; then
    echo "rust-ota: restarts"
    sleep 1
    reset
  fi
  if test ${rota_slot} = a; then rota_slot=b; else rota_slot=a; fi
done
echo "rust-ota: restarts"
sleep 1
reset
