//! The power cut: where it comes, and what all media of the machine hold after it.

use std::ops::Range;

use super::disk::{Tear, Undecided};
use super::medium::Device;
use super::world::{Limits, PowerCut, Trace, World};
use crate::choice::Choices;

/// A pending sector, and the disk it is on.
struct Place {
    device: usize,
    sector: Undecided,
}

/// Sectors of one disk that are torn together.
struct Torn {
    device: usize,
    sectors: Range<usize>,
    tear: Tear,
}

impl Torn {
    fn covers(&self, place: &Place) -> bool {
        self.device == place.device && self.sectors.contains(&place.sector.sector)
    }
}

impl World {
    /// Cuts the power here, if the enumeration says so.
    pub(crate) fn maybe_cut(&mut self, at: impl FnOnce() -> String) {
        if self.cuts >= self.limits.cuts || self.choices.choose_rarely(2) == 0 {
            return;
        }
        if self.choices.is_new() {
            self.counters.crash_points += 1;
        }
        self.cuts += 1;
        self.powered = false;
        self.trace.note(|| format!("POWER CUT in {}", at()));
        self.choose_image();
        // Without new choices the image is as new as the cut.
        if self.choices.is_new() {
            self.counters.images += 1;
        }
        std::panic::resume_unwind(Box::new(PowerCut));
    }

    /// Decides what the media hold after the power was cut, of all devices together.
    fn choose_image(&mut self) {
        self.choose_sectors();
        for device in &mut self.devices {
            let name = device.name.clone();
            device.model_mut().decide(&name, &mut self.choices, &self.limits, &mut self.trace);
            device.model_mut().lose_power();
        }
        self.files.cut(&mut self.choices, self.limits.images, &mut self.trace);
    }

    /// Decides about the sectors of all disks.
    fn choose_sectors(&mut self) {
        let torn = self.choose_tear();
        let mut places: Vec<Place> =
            (0..self.devices.len()).flat_map(|device| self.undecided(device)).collect();
        places.retain(|place| !torn.as_ref().is_some_and(|torn| torn.covers(place)));
        decide(&mut self.devices, &places, &mut self.choices, &self.limits, &mut self.trace);
        let Some(Torn { device, sectors, tear }) = torn else { return };
        let device = &mut self.devices[device];
        self.trace.note(|| format!("  {}: torn {sectors:?}, {tear:?}", device.name));
        if let Some(disk) = device.disk_mut() {
            sectors.clone().for_each(|sector| disk.tear(sector, tear));
        }
    }

    /// Nothing, one sector, or one whole request.
    fn choose_tear(&mut self) -> Option<Torn> {
        let limit = self.limits.images;
        let places: Vec<(usize, Range<usize>)> = self
            .devices
            .iter()
            .enumerate()
            .filter_map(|(index, device)| Some((index, device.disk()?)))
            .flat_map(|(index, disk)| {
                disk.tear_places(limit).into_iter().map(move |sectors| (index, sectors))
            })
            .collect();
        let tears = &self.limits.tears;
        let chosen = self.choices.choose(1 + places.len() * tears.len()).checked_sub(1)?;
        let (device, sectors) = places[chosen / tears.len()].clone();
        Some(Torn { device, sectors, tear: tears[chosen % tears.len()] })
    }

    fn undecided(&self, device: usize) -> Vec<Place> {
        let disk = self.devices[device].disk();
        let sectors = disk.map_or(Vec::new(), |disk| disk.undecided());
        sectors.into_iter().map(|sector| Place { device, sector }).collect()
    }

    /// A sync failed: what it was to make durable is decided without anybody being told.
    pub(super) fn fail_sync(&mut self, index: usize) {
        let places = self.undecided(index);
        self.devices[index].disk_mut().into_iter().for_each(|disk| disk.lose_track());
        decide(&mut self.devices, &places, &mut self.choices, &self.limits, &mut self.trace);
        let device = &mut self.devices[index];
        let name = device.name.clone();
        device.model_mut().decide(&name, &mut self.choices, &self.limits, &mut self.trace);
    }
}

/// Puts the old or one of the new versions of every sector on its medium.
fn decide(
    devices: &mut [Device],
    places: &[Place],
    choices: &mut Choices,
    limits: &Limits,
    trace: &mut Trace,
) {
    for (place, pick) in places.iter().zip(picks(devices.len(), places, choices, limits)) {
        let (device, Undecided { sector, versions }) = (&mut devices[place.device], &place.sector);
        trace.note(|| format!("  {}: sector {sector} has version {pick} of {}", device.name, versions.len()));
        if let (Some(disk), Some(pick)) = (device.disk_mut(), pick.checked_sub(1)) {
            disk.put(*sector, &versions[pick]);
        }
    }
}

/// A version for each sector, 0 for the old one: every combination, or where these are too many, one of the classes.
fn picks(devices: usize, places: &[Place], choices: &mut Choices, limits: &Limits) -> Vec<usize> {
    let versions = |place: &Place| place.sector.versions.len();
    let combinations =
        places.iter().try_fold(1_usize, |product, place| product.checked_mul(1 + versions(place)));
    if combinations.is_some_and(|combinations| combinations <= limits.images) {
        return places.iter().map(|place| choices.choose(1 + versions(place))).collect();
    }
    let class = choices.choose(CLASSES.len() + 2 * devices);
    let is_new = |at: usize, place: &Place| match class.checked_sub(CLASSES.len()) {
        None => CLASSES[class](at, places.len()),
        Some(device) if device < devices => place.device == device,
        Some(device) => place.device != device - devices,
    };
    let newest = |(at, place)| if is_new(at, place) { versions(place) } else { 0 };
    places.iter().enumerate().map(newest).collect()
}

/// Which sectors of many became new, by their place among them.
pub(super) const CLASSES: [fn(usize, usize) -> bool; 8] = [
    |_, _| false,
    |_, _| true,
    |at, _| at != 0,
    |at, count| at + 1 != count,
    |at, _| at == 0,
    |at, count| at + 1 == count,
    |at, count| at < count / 2,
    |at, _| at % 2 == 0,
];
