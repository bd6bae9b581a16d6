//! A boot control for the kind of bootloader whose trials ride on the restart: `autoboot.txt` of one sector, in which
//! the commit swaps two numbers. It arms nothing that lasts.

use std::io;

use client_core::boot::{Armable, Arming, BootControl, BootEnvError, BootError, BootState};
use client_core::slot::{Restart, Slot};
use client_core::storage::BlockDevice;
use client_core::storage::two_copies::{FlushFirst, replace};
use testkit::conformance::boot::Booted;

/// What the medium writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

pub struct Tryboot<D> {
    device: D,
    flush: FlushFirst,
    /// As the firmware tells it in the device tree.
    booted: Booted,
}

impl<D: BlockDevice> Tryboot<D> {
    pub fn open(device: D, booted: Booted) -> Tryboot<D> {
        Tryboot { device, flush: FlushFirst::default(), booted }
    }

    fn permanent(&mut self) -> Result<Slot, BootEnvError> {
        self.flush.before_reading([&mut self.device])?;
        let mut sector = [0; SECTOR_BYTES];
        let path = self.device.name().to_owned();
        let failed = |source| BootEnvError::Io { doing: "read", path: path.clone(), source };
        self.device.read_at(0, &mut sector).map_err(failed)?;
        let found = Slot::BOTH.into_iter().find(|slot| sector == file(*slot));
        found.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    fn write(&mut self, permanent: Slot) -> Result<(), BootEnvError> {
        let written = replace(&mut self.device, 0, &file(permanent));
        if written.is_err() {
            self.flush.again();
        }
        written.map_err(|fault| BootEnvError::writing(&self.device.name(), fault))
    }
}

fn file(permanent: Slot) -> [u8; SECTOR_BYTES] {
    let (number, other) = match permanent {
        Slot::A => (2, 3),
        Slot::B => (3, 2),
    };
    let text = format!("boot_partition={number}\n[tryboot]\nboot_partition={other}\n");
    let mut sector = [b'\n'; SECTOR_BYTES];
    sector[..text.len()].copy_from_slice(text.as_bytes());
    sector
}

impl<D: BlockDevice> BootControl for Tryboot<D> {
    fn check_configured(&mut self) -> Result<(), BootError> {
        Ok(())
    }

    fn state(&mut self) -> Result<BootState, BootError> {
        let selected = self.permanent()?;
        let trial = self.booted.one_shot && selected != self.booted.slot;
        Ok(BootState { selected, trial, arming: Arming::WithReboot })
    }

    fn check_arm(&mut self, _: Slot) -> Result<(), BootError> {
        Ok(self.permanent().map(drop)?)
    }

    fn arm(&mut self, target: Armable) -> Result<(), BootError> {
        assert_ne!(self.permanent()?, target.slot(), "the permanent slot needs no trial");
        Ok(())
    }

    fn restart_with(&mut self, target: Armable) -> Result<Restart, BootError> {
        assert_ne!(self.permanent()?, target.slot(), "the file names the other slot for trials");
        Ok(Restart::With { argument: "0 tryboot".into() })
    }

    fn commit(&mut self, target: Slot) -> Result<(), BootError> {
        Ok(self.write(target)?)
    }

    fn settle_on(&mut self, slot: Slot) -> Result<(), BootError> {
        if self.permanent()? == slot {
            return Ok(());
        }
        Ok(self.write(slot)?)
    }

    fn describe(&self) -> String {
        format!("one-shot boot file {}", self.device.name())
    }
}
