//! The built-in handler of `rootfs-image`, `rust-ota-delta` and `mender-binary-delta`: one image to the slot that does not
//! run, a trial boot, a commit. They differ in how the image comes from the payload's file, and in nothing else.

use super::delta::{self, BegunDelta, Delta, DeltaProblem};
use super::frames::Framed;
use super::journal::{self, Start};
use super::vcdiff::{self, Old};
use super::{
    Arriving, Cost, HandlerState, InstallError, PayloadHandler, Progress, RebootNeed, SlotWriter,
    TargetDigest, Written, WrittenImage,
};
use crate::artifact::frames::FramesInfo;
use crate::boot::{self, Arming, BootControl, Intent, Verdict, verdict};
use crate::slot::{Restart, Slot, Slots, System};
use crate::storage::ReadAt;

/// How the image comes.
enum How<'m> {
    /// As the payload file, front to back.
    Whole,
    /// In the frames of it that the running slot lacks.
    Frames(Framed<'m>, Box<dyn ReadAt>),
    /// As the difference to what runs.
    Delta(Box<BegunDelta>),
    /// The same, of Mender's kind.
    Vcdiff(Old),
}

/// The same, as far as it is known before the payload's file.
enum Given {
    Image,
    Delta(Delta),
    Vcdiff(TargetDigest, Old),
}

/// Installs root file system images on a device with two slots.
pub struct RootfsImage<'a> {
    boot: &'a mut dyn BootControl,
    slots: &'a mut dyn Slots,
    system: &'a dyn System,
    file: FileIs,
    image: Option<WrittenImage>,
    written: Option<Written>,
    intent: Intent,
}

/// What the payload's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileIs {
    /// The image.
    Image,
    /// What makes it of the one that runs.
    Delta,
    /// The same, as Mender's commercial plans make it.
    Vcdiff,
}

impl<'a> RootfsImage<'a> {
    /// A handler that has written nothing yet.
    ///
    /// # Errors
    /// When the device is not set up to boot from two slots.
    pub fn new(
        boot: &'a mut dyn BootControl,
        slots: &'a mut dyn Slots,
        system: &'a dyn System,
    ) -> Result<RootfsImage<'a>, InstallError> {
        boot.check_configured()?;
        let file = FileIs::Image;
        Ok(RootfsImage { boot, slots, system, file, image: None, written: None, intent: Intent::Try })
    }

    /// As [`new`](RootfsImage::new), for a payload that is the difference to what runs.
    ///
    /// # Errors
    /// When the device is not set up to boot from two slots.
    pub fn of_delta(
        boot: &'a mut dyn BootControl,
        slots: &'a mut dyn Slots,
        system: &'a dyn System,
    ) -> Result<RootfsImage<'a>, InstallError> {
        Ok(RootfsImage { file: FileIs::Delta, ..RootfsImage::new(boot, slots, system)? })
    }

    /// As [`of_delta`](RootfsImage::of_delta), for a payload of Mender's commercial plans.
    ///
    /// # Errors
    /// When the device is not set up to boot from two slots.
    pub fn of_vcdiff(
        boot: &'a mut dyn BootControl,
        slots: &'a mut dyn Slots,
        system: &'a dyn System,
    ) -> Result<RootfsImage<'a>, InstallError> {
        Ok(RootfsImage { file: FileIs::Vcdiff, ..RootfsImage::new(boot, slots, system)? })
    }

    /// Takes an image that an earlier deployment wrote and committed for the one to install, once it was read back and
    /// found to be that.
    ///
    /// # Errors
    /// When a trial is open, the slot cannot be opened, or holds something else.
    pub(crate) fn recognize(
        &mut self,
        image: WrittenImage,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        boot::check_settled(self.boot, self.system.running_slot()?)?;
        let mut device = self.slots.open(image.slot)?;
        let written = Written::verify(&mut *device, image, progress)?;
        self.image = Some(written.image().clone());
        self.written = Some(written);
        Ok(())
    }

    /// The running slot, to be read; `None` where it cannot be.
    fn open_running(&mut self, running: Slot) -> Option<Box<dyn ReadAt>> {
        match self.slots.open_source(running) {
            Ok(source) => Some(source),
            Err(error) => {
                log::warn!("everything is fetched: {error}");
                None
            }
        }
    }

    /// Writes the slot. Says when it `goes_on` with what an earlier process wrote there.
    fn write_slot(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
        goes_on: &mut bool,
    ) -> Result<(), InstallError> {
        let payload = &mut *arriving.payload;
        let reading = payload.reading();
        let running = self.system.running_slot()?;
        // The other slot may be overwritten only while nothing points at it, durably.
        boot::check_settled(self.boot, running)?;
        let target = !running;
        // Opened before the target is, which takes the slots for itself.
        let source = FramesInfo::of(arriving.header).and_then(|_| self.open_running(running));
        // An update that can never be tried is not worth a byte.
        self.boot.check_arm(target)?;
        let given = match self.file {
            FileIs::Image => Given::Image,
            FileIs::Delta => Given::Delta(Delta::new(arriving.header, running, self.slots)?),
            FileIs::Vcdiff => {
                let digest = TargetDigest::of_provides(arriving.header).ok_or(DeltaProblem::NoDigest)?;
                Given::Vcdiff(digest, Old::new(running, self.slots.open_source(running)?, arriving.header)?)
            }
        };
        let mut device = self.slots.open(target)?;
        // Once more, now that the slot is ours: another process may have armed it while we waited for it.
        boot::check_settled(self.boot, running)?;
        let Some(mut file) = payload.next_file()? else {
            return Err(InstallError::FileCount { found: "none" });
        };
        let member = file.member();
        // The size is known before the first byte, and so is whether it fits.
        let (size_bytes, digest, how) = match given {
            Given::Image => {
                let (size, digest) = (file.size(), TargetDigest::of(&file));
                let framed =
                    member.as_ref().and_then(|member| Framed::open(arriving.header, member, file.size()));
                match (framed, source) {
                    (Some(framed), Some(source)) => (size, digest, How::Frames(framed, source)),
                    (Some(_) | None, Some(_) | None) => (size, digest, How::Whole),
                }
            }
            Given::Delta(delta) => {
                let (size, digest) = (delta.target_bytes(), delta.digest());
                let earlier = std::mem::take(&mut arriving.earlier);
                (size, digest, How::Delta(Box::new(delta.begin(&mut *device, &mut file, earlier)?)))
            }
            // But of this one, which ends where its delta ends.
            Given::Vcdiff(digest, old) => (vcdiff::most_bytes(&*device, target)?, digest, How::Vcdiff(old)),
        };
        let start = match how {
            How::Whole => journal::go_on(&mut *device, target, &mut file, &arriving.earlier, progress),
            How::Frames(..) | How::Delta(..) | How::Vcdiff(..) => Start::default(),
        };
        let position = match &how {
            How::Whole | How::Frames(..) | How::Vcdiff(..) => start.position(),
            How::Delta(delta) => delta.position(),
        };
        *goes_on = start.goes_on() || position > 0;
        if *goes_on {
            arriving.state.goes_on();
        }
        let whole = Cost {
            transfer_bytes: file.stored_bytes().and_then(|bytes| bytes.checked_sub(start.stored())),
            ..Cost::default()
        };
        match &how {
            How::Whole => progress.will_cost(&Cost { image_bytes: Some(size_bytes), ..whole }),
            How::Vcdiff(_) => progress.will_cost(&whole),
            How::Delta(delta) => progress.will_cost(&delta.cost()),
            // Known when it is planned.
            How::Frames(..) => {}
        }
        let mut writer = SlotWriter::resume(&mut *device, target, size_bytes, position, reading)?;
        // Of an image in frames only the frames are read; the read-back proves the image.
        let all_is_read = !matches!(how, How::Frames(..));
        let mut other_content = None;
        let written = match how {
            // Fails at the end of the file on a wrong checksum.
            How::Whole => {
                journal::copy(&mut writer, target, &mut file, &start, &mut *arriving.state, progress)
            }
            How::Frames(framed, mut source) => framed.install(&mut *source, &mut writer, progress),
            How::Delta(mut delta) => delta.write(&mut file, &mut writer, arriving.state, progress),
            How::Vcdiff(mut old) => {
                let written = vcdiff::apply(&mut file, &mut old, &mut writer, progress);
                other_content = Some(old);
                written
            }
        };
        let mut explain = |error| match other_content.take() {
            Some(old) => old.explain(error),
            None => error,
        };
        arriving.state.wrote(target, writer.statistics()); // the medium wears whatever becomes of it
        written.map_err(&mut explain)?;
        // The artifact has to end properly, and every byte of it be accounted for in the manifest.
        if all_is_read && payload.next_file()?.is_some() {
            return Err(InstallError::FileCount { found: "more than one" });
        }
        let (written, statistics) = writer.finish(digest, progress).map_err(explain)?;
        progress.finished(&statistics);
        arriving.state.set(HandlerState::of(written.image())?);
        self.image = Some(written.image().clone());
        self.written = Some(written);
        Ok(())
    }

    fn target(&self) -> Result<Slot, InstallError> {
        Ok(self.image.as_ref().ok_or(InstallError::NothingWritten)?.slot)
    }
}

impl PayloadHandler for RootfsImage<'_> {
    fn download(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        let mut goes_on = false;
        self.write_slot(arriving, progress, &mut goes_on).map_err(|error| {
            // Nobody has seen this artifact as a whole yet: it may be what was here before that is wrong.
            let of_content = matches!(error, InstallError::Artifact(_) | InstallError::ReadBack { .. });
            if goes_on && of_content && !error.is_of_source() {
                return InstallError::NotAsBefore { source: Box::new(error) };
            }
            error
        })
    }

    fn restore(&mut self, state: HandlerState) {
        if delta::is_journal(&state) {
            return;
        }
        // Without an image nothing is installed or committed, and the boot environment tells what there is to undo.
        self.image = state.read().unwrap_or_else(|error| {
            log::error!("what was written where is not known any more: {error}");
            None
        });
    }

    fn overwrites_slot(&self) -> bool {
        true
    }

    fn image(&self) -> Option<WrittenImage> {
        self.image.clone()
    }

    fn install(&mut self) -> Result<(), InstallError> {
        let running = self.system.running_slot()?;
        boot::check_settled(self.boot, running)?;
        let written = self.proved()?;
        self.system.begin_traces(); // what is left of earlier trials says nothing about this one
        let armed = super::arm(self.boot, &written);
        self.written = Some(written);
        Ok(armed?)
    }

    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        Ok(match self.environment_verdict()? {
            // The old software runs and will run: there is nothing to restart for.
            Verdict::FellBack => RebootNeed::None,
            Verdict::Untouched
            | Verdict::Trial
            | Verdict::Committed
            | Verdict::Reverting
            | Verdict::Contradictory => RebootNeed::Automatic,
        })
    }

    fn reboot(&mut self) -> Result<(), InstallError> {
        let restart = self.restart()?;
        Ok(self.system.reboot(&restart)?)
    }

    fn restart(&mut self) -> Result<Restart, InstallError> {
        match self.boot.state()?.arming {
            Arming::Durable => Ok(Restart::Plain),
            // This is what arms, so it takes the same proof.
            Arming::WithReboot => {
                let written = self.proved()?;
                let restart = super::restart_with(self.boot, &written);
                self.written = Some(written);
                Ok(restart?)
            }
        }
    }

    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        match self.environment_verdict()? {
            Verdict::Trial => Ok(()),
            found @ (Verdict::Untouched
            | Verdict::Committed
            | Verdict::FellBack
            | Verdict::Reverting
            | Verdict::Contradictory) => Err(InstallError::NotOnTrial { found }),
        }
    }

    fn reboot_back(&mut self) -> Result<(), InstallError> {
        Ok(self.system.reboot(&Restart::Plain)?)
    }

    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        self.intent = Intent::GoBack;
        match self.environment_verdict()? {
            Verdict::FellBack => Ok(()),
            found @ (Verdict::Untouched
            | Verdict::Trial
            | Verdict::Committed
            | Verdict::Reverting
            | Verdict::Contradictory) => Err(InstallError::NotBack { found }),
        }
    }

    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        Ok(true)
    }

    fn commit(&mut self) -> Result<(), InstallError> {
        let target = self.target()?;
        let running = self.system.running_slot()?;
        Ok(boot::commit_trial(self.boot, running, target)?)
    }

    fn roll_back(&mut self) -> Result<(), InstallError> {
        self.intent = Intent::GoBack;
        let original = match &self.image {
            Some(image) => !image.slot,
            // A record that could not be understood: an open trial is the only thing there can be to undo.
            None => self.boot.state()?.fall_back(),
        };
        Ok(self.boot.settle_on(original)?)
    }

    fn verdict(&mut self) -> Result<Option<Verdict>, InstallError> {
        Ok(Some(self.environment_verdict()?))
    }
}

impl RootfsImage<'_> {
    /// The proof that the slot holds the image. Where another process wrote it, what the slot holds now must be read
    /// again before it is armed.
    fn proved(&mut self) -> Result<Written, InstallError> {
        if let Some(written) = self.written.take() {
            return Ok(written);
        }
        let image = self.image.clone().ok_or(InstallError::NothingWritten)?;
        let mut device = self.slots.open(image.slot)?;
        Written::verify(&mut *device, image, &mut Silent)
    }

    fn environment_verdict(&mut self) -> Result<Verdict, InstallError> {
        let running = self.system.running_slot()?;
        let state = self.boot.state()?;
        let target = self.image.as_ref().map_or_else(|| state.likely_target(running), |image| image.slot);
        Ok(verdict(state, running, target, self.intent))
    }
}

/// Progress nobody watches.
struct Silent;

impl Progress for Silent {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
}
