//! Why a server does not start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::StoreError;

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder.
    Store(StoreError),
    /// The address.
    Listen {
        /// Where.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// Certificates or keys.
    Tls {
        /// What is wrong.
        reason: String,
    },
    /// A certificate of clients without TLS.
    ClientCaWithoutTls,
    /// The folder of the page.
    Page {
        /// Where.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The threads.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(error) => error.fmt(f),
            StartError::Listen { address, source } => write!(f, "listening on {address}: {source}"),
            StartError::Tls { reason } => write!(f, "TLS: {reason}"),
            StartError::ClientCaWithoutTls => {
                write!(f, "certificates of clients need a certificate of the server")
            }
            StartError::Page { path, source } => write!(f, "the page in {}: {source}", path.display()),
            StartError::Threads(error) => write!(f, "starting threads: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
