//! Searches and sorts devices.

use std::cmp::Ordering;

use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::Readers;
use super::read::{self, Fault};
use crate::store::query::{DeviceQuery, DeviceView, Found, place};

/// What is kept between searches.
#[derive(Default)]
pub(super) struct Index;

fn scan(connection: &Connection, readers: &Readers, query: &DeviceQuery) -> Result<Vec<DeviceView>, Fault> {
    let mut found = Vec::new();
    read::all_devices(connection, |device| {
        let view = read::view(connection, &readers.names, device)?;
        if view.is_wanted(query) {
            found.push(view);
        }
        Ok(())
    })?;
    Ok(found)
}

fn compare(query: &DeviceQuery, a: &DeviceView, b: &DeviceView) -> Ordering {
    let mut ordering = Ordering::Equal;
    if query.by_status {
        // By its name, as the list of authentication has it.
        ordering = a.device.status().name().cmp(b.device.status().name());
    }
    for (attr, direction) in &query.sort {
        ordering = ordering.then_with(|| {
            direction.apply(place(a.value(attr).as_ref()).compare(&place(b.value(attr).as_ref())))
        });
    }
    ordering.then_with(|| a.device.id.cmp(&b.device.id))
}

/// A page of devices.
pub(super) fn devices(
    connection: &Connection,
    readers: &Readers,
    query: &DeviceQuery,
) -> Result<Found<DeviceView>, Fault> {
    let mut found = scan(connection, readers, query)?;
    let total = found.len() as u64;
    found.sort_by(|a, b| compare(query, a, b));
    let (skip, take) = (
        usize::try_from(query.skip).unwrap_or(usize::MAX),
        usize::try_from(query.take).unwrap_or(usize::MAX),
    );
    Ok(Found { items: found.into_iter().skip(skip).take(take).collect(), total })
}

/// The numbers of all devices that a query is about.
pub(super) fn numbers(
    connection: &Connection,
    readers: &Readers,
    query: &DeviceQuery,
) -> Result<RoaringBitmap, Fault> {
    Ok(scan(connection, readers, query)?.iter().map(|view| view.device.number).collect())
}

/// How many devices were heard of.
pub(super) fn seen_devices(connection: &Connection, readers: &Readers) -> Result<u64, Fault> {
    let all = scan(connection, readers, &DeviceQuery::default())?;
    Ok(all.iter().filter(|view| view.check_in.is_some()).count() as u64)
}
